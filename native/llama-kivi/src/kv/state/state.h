// Saved states: one sequence of the cache as bytes, which this or another machine can load.
//
//   header    "LKST", version, StateKey (settings that model and cache must match), payload bytes
//   payload   keys, then values (state_side.h)
//   checksum  of header and payload (state_checksum.h)
//
// Integers, floats and halves are little-endian, in the order of kivi_format.h.
#pragma once

#include <cstdint>
#include <span>

#include "kv/cache.h"
#include "kv/state/state_key.h"

namespace lk::kv {

// Version 7: the checksum has eight lanes.
inline constexpr uint32_t kStateVersion = 7;

struct StateHeader {
    char magic[4];
    uint32_t version;
    StateKey key;
    uint64_t payload_bytes;
};

// Number of bytes that save_state writes.
uint64_t state_size(CacheParts parts, int seq);
// Writes out[state_size]. The bytes do not depend on how the cache is split.
void save_state(CacheParts parts, int seq, const ModelKey& model, std::span<uint8_t> out);
// Replaces a sequence. Throws LK_BAD_STATE, LK_CACHE_FULL or LK_OUT_OF_MEMORY, with the sequence unchanged. data is
// untrusted; any sequence that loads can be continued.
void load_state(CacheParts parts, int seq, const ModelKey& model, std::span<const uint8_t> data,
                const SettingNames& names = {});

}  // namespace lk::kv
