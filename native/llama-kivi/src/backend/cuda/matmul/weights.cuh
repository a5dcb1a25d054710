// Shared by the matmul kernels: decoding of weights for tensor cores.
#pragma once

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/device/words.cuh"
#include "backend/cuda/plan/matmul_plan.h"
#include "quant/blocks.h"

namespace lk::cuda {

// Number of chunks of 32 elements that share their bytes and are decoded together. A warp's read costs as much as the
// cache lines it touches, and these reads touch one line in each of eight rows.
constexpr int chunks_together(WeightType type) {
    return type == WeightType::Q4_K || type == WeightType::Q5_K ? 2 : type == WeightType::Q6_K ? 4 : 1;
}

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

// Decodes elements [i, i + 8) of kChunks consecutive chunks to halves; i is in the first chunk.
template <WeightType kType, int kChunks>
__device__ inline void decode_chunks(const uint8_t* row, int i, uint4 (&out)[kChunks]) {
    if constexpr (kType == WeightType::Q4_K || kType == WeightType::Q5_K) {
        constexpr bool five = kType == WeightType::Q5_K;
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * (five ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        const PairScales scales(*reinterpret_cast<const uint4*>(b), i % 256 / 64);
        out[0] = decode_half_pair<five, 0>(b, i % 256, scales.half_scales(), scales.half_offsets());
        out[1] = decode_half_pair<five, 1>(b, i % 256, scales.half_scales(), scales.half_offsets());
    } else if constexpr (kType == WeightType::Q6_K) {
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ6_K);
        const int part = i % 256 / 128;
        const int at = i % 32;
        unsigned low[2][2];
        unsigned high[2];
        load_words(b + part * 64 + at, low[0]);
        load_words(b + part * 64 + 32 + at, low[1]);
        load_words(b + 128 + part * 32 + at, high);
        unsigned scales[2];  // one byte per 16 elements
        load_words(b + 192 + part * 8, scales);
        const float d = half_bits_to_float(load_u16(b + 208));
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const auto word = [&](int w) {
                return (low[k % 2][w] >> (k / 2 * 4) & 0x0f0f0f0fu) | (high[w] >> (2 * k) & 0x03030303u) << 4;
            };
            const unsigned byte = scales[k / 2] >> (k % 2 * 16 + at / 16 * 8);
            const float scale = d * static_cast<float>(static_cast<int8_t>(byte));
            out[k] = to_halves({{word(0), word(1)}, scale, -32 * scale});
        }
    } else {
        out[0] = decode8_halves<kType>(row, i);
    }
}

}  // namespace lk::cuda
