// Shared by the matmul kernels: decoding of weights for tensor cores.
#pragma once

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/device/words.cuh"
#include "backend/cuda/plan/matmul_plan.h"
#include "quant/blocks.h"

namespace lk::cuda {

// Decodes elements [i + 32 kHalf, i + 32 kHalf + 8) of a Q4_K or (kFive) Q5_K block. i is in the first of two
// sub-blocks that share their bytes; scale and offset hold the values of both.
template <bool kFive, int kHalf>
__device__ inline uint4 decode_half_pair(const uint8_t* block, int i, __half2 scale, __half2 offset,
                                         unsigned upper = kUpperBytes) {
    const int pair = i / 64;
    const uint2 codes = *reinterpret_cast<const uint2*>(block + 16 + (kFive ? 32 : 0) + pair * 32 + i % 32);
    uint2 fifth = make_uint2(0, 0);
    if constexpr (kFive) {
        fifth = *reinterpret_cast<const uint2*>(block + 16 + i % 32);
    }
    const auto word = [&](unsigned w, unsigned high) {
        const unsigned bit = kFive ? (high >> (2 * pair + kHalf) & 0x01010101u) << 4 : 0;
        return (w >> 4 * kHalf & 0x0f0f0f0fu) | bit;
    };
    const unsigned words[2] = {word(codes.x, fifth.x), word(codes.y, fifth.y)};
    return kHalf == 0 ? to_halves(words, __low2half2(scale), __low2half2(offset), upper)
                      : to_halves(words, __high2half2(scale), __high2half2(offset), upper);
}

}  // namespace lk::cuda
