// A sequence of the cache as bytes, to be kept and brought back, here or on another machine.
//
//   header    "LKST", version, what the cache must be like (StateKey), bytes of the payload
//   payload   keys, then values: counts, runs, blocks, ring rows by age, sinks, per-head tables
//   checksum  FNV-1a over 64-bit words of everything before
//
// Integers and halves are little-endian, in the order of kivi_format.h.
#pragma once

#include <cstdint>
#include <span>

#include "kv/cache.h"

namespace lk::kv {

// What a model and a cache must have in common with those that a state was saved from.
struct StateKey {
    int32_t n_layer, n_head_kv, head_size;
    int32_t type_k, type_v;
    int32_t group, residual;  // 0 where no side is a KIVI type
    int32_t sinks_k, sinks_v;
    int32_t reserved = 0;
    uint64_t model;  // a fingerprint of the model

    bool operator==(const StateKey&) const = default;
};

// Bytes that save_state writes.
uint64_t state_size(CacheParts parts, int seq);
// out[state_size]. The same bytes whatever the parts are.
void save_state(CacheParts parts, int seq, uint64_t model, std::span<uint8_t> out);
// Replaces a sequence. Throws LK_BAD_STATE, LK_CACHE_FULL or LK_OUT_OF_MEMORY and leaves it as it was.
void load_state(CacheParts parts, int seq, uint64_t model, std::span<const uint8_t> data);

}  // namespace lk::kv
