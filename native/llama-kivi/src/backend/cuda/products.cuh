// What kernels of products share: which block is of which product, and weights on their way to the matrix units.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"

namespace lk::cuda {

// Which product a block is of.
__device__ inline int product_of(const FewProducts& products) {
    int which = 0;
    while (which + 1 < products.count && static_cast<int>(blockIdx.x) >= products.first_block[which + 1]) {
        ++which;
    }
    return which;
}

// Gives every product its blocks of rows_each rows; returns how many there are.
inline int count_blocks(FewProducts& products, int rows_each) {
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + rows_each - 1) / rows_each;
    }
    return n_blocks;
}

// Chunks of 32 elements that share their bytes are decoded together: a read of a warp costs as much as the lines it
// touches, and here it touches one for each of eight rows.
constexpr int chunks_together(WeightType type) {
    return type == WeightType::Q4_K || type == WeightType::Q5_K ? 2 : type == WeightType::Q6_K ? 4 : 1;
}

// Elements [i, i + 8) of each of the chunks, and of those that follow, as halves; i is of the first one.
template <WeightType kType, int kChunks>
__device__ inline void decode_chunks(const uint8_t* row, int i, uint4 (&out)[kChunks]) {
    if constexpr (kType == WeightType::Q4_K || kType == WeightType::Q5_K) {
        constexpr bool five = kType == WeightType::Q5_K;
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * (five ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        const int pair = i % 256 / 64;
        const PairScales scales(*reinterpret_cast<const uint4*>(b), pair);
        const uint2 codes = *reinterpret_cast<const uint2*>(b + 16 + (five ? 32 : 0) + pair * 32 + i % 32);
        uint2 fifth = make_uint2(0, 0);
        if constexpr (five) {
            fifth = *reinterpret_cast<const uint2*>(b + 16 + i % 32);
        }
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const auto word = [&](unsigned w, unsigned high) {
                const unsigned bit = five ? (high >> (2 * pair + k) & 0x01010101u) << 4 : 0;
                return (w >> 4 * k & 0x0f0f0f0fu) | bit;
            };
            out[k] = to_halves({{word(codes.x, fifth.x), word(codes.y, fifth.y)}, scales.scale[k], scales.offset[k]});
        }
    } else if constexpr (kType == WeightType::Q6_K) {
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ6_K);
        const int part = i % 256 / 128;
        const int at = i % 32;
        unsigned low[2][2];
        unsigned high[2];
        load_words(b + part * 64 + at, low[0]);
        load_words(b + part * 64 + 32 + at, low[1]);
        load_words(b + 128 + part * 32 + at, high);
        unsigned scales[2];  // of 16 elements each
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
