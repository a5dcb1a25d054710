// A sequence of the cache as bytes, to be kept and brought back, here or on another machine.
//
//   header    "LKST", version, what model and cache must be like (StateKey), bytes of the payload
//   payload   keys, then values (state_side.h)
//   checksum  FNV-1a over 64-bit words of everything before
//
// Integers, floats and halves are little-endian, in the order of kivi_format.h.
#pragma once

#include <cstdint>
#include <span>

#include "kv/cache.h"
#include "kv/state_key.h"

namespace lk::kv {

// 2: the settings of the model are in the header; tables of heads have a fixed length.
inline constexpr uint32_t kStateVersion = 2;

struct StateHeader {
    char magic[4];
    uint32_t version;
    StateKey key;
    uint64_t payload_bytes;
};

// FNV-1a over 64-bit words, the last one filled up with zeros.
uint64_t state_checksum(std::span<const uint8_t> data);

// Bytes that save_state writes.
uint64_t state_size(CacheParts parts, int seq);
// out[state_size]. The same bytes whatever the parts are.
void save_state(CacheParts parts, int seq, const ModelKey& model, std::span<uint8_t> out);
// Replaces a sequence. Throws LK_BAD_STATE, LK_CACHE_FULL or LK_OUT_OF_MEMORY and leaves it as it was. Whatever the
// bytes are, a sequence that is taken can be continued.
void load_state(CacheParts parts, int seq, const ModelKey& model, std::span<const uint8_t> data,
                const SettingNames& names = {});

}  // namespace lk::kv
