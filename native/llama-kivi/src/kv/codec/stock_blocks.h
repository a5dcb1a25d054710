// Rows of the stock cache types in ggml blocks of 32 channels (q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl), quantized by the
// rules of llama.cpp's cache: one pass over a block, no search for the best scale.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "llama_kivi.h"

namespace lk::kv {

#pragma pack(push, 1)
struct BlockIQ4_NL {  // iq4_level(q) * d; codes as in Q4_0
    half_t d;
    uint8_t qs[16];
};
#pragma pack(pop)
static_assert(sizeof(BlockIQ4_NL) == 18);

// x and out: [n], n % 32 == 0.
void encode_blocks(lk_cache_type type, const float* x, int n, uint8_t* blocks) noexcept;
void decode_blocks(lk_cache_type type, const uint8_t* blocks, float* out, int n) noexcept;

}  // namespace lk::kv
