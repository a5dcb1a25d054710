// The token of multiply_stream in shared memory. C++17 for hosts and devices; the tests run it without a GPU.
#pragma once

#include "backend/cuda/device/both.h"
#include "backend/cuda/device/shared_bytes.h"
#include "backend/cuda/plan/stream_plan.h"

namespace lk::cuda {

// Power of two by which StreamPiece's integer dot products with block i exceed the result.
template <WeightType kType>
LK_BOTH constexpr float stream_excess(int i) {
    return kType == WeightType::Q4_0   ? 16.0f
           : kType == WeightType::Q4_K ? (i % 2 == 0 ? 1.0f : 16.0f)
           : kType == WeightType::Q5_K ? (i % 2 == 0 ? 8.0f : 16.0f)
           : kType == WeightType::Q6_K ? (i % 4 < 2 ? 1.0f : 16.0f)
                                       : 1.0f;
}

// Block i: the scale of its codes, and the sum of its dequantized values.
template <WeightType kType>
LK_BOTH Floats2 stream_block(int i, const Floats2& block) {
    return {{block.v[0] * (1 / stream_excess<kType>(i)), block.v[1]}};
}

// Q6_K: half a block.
struct alignas(8) StreamChunk {
    float scale;
    int offset;  // -32 times the sum of the codes, divided by 16 and multiplied by 4^quarter; see StreamPiece

    // i: the index of the first element / 16.
    LK_BOTH static StreamChunk of(int i, float scale, const Words4& codes) {
        int sum = 0;
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            sum = dot_signed(codes.w[k], 0x01010101u, sum);
        }
        return {scale * (1 / stream_excess<WeightType::Q6_K>(i / 2)), sum * -(2 << i / 2 % 4 * 2)};
    }
};

// A thread's part of the copy to shared memory; see StreamActivations. values: floats for float weights, otherwise
// codes. token_blocks: scales and sums; see make_codes. Stores wait for loads, so that several loads precede them.
template <WeightType kType, int kThreads>
LK_BOTH void load_token(int thread, int n_cols, const Words4* values, const Floats2* token_blocks, SharedBytes x,
                        SharedBytes blocks) {
    constexpr int kEach = is_float(kType) ? 4 : 16;  // elements of 16 bytes
    constexpr int kLoads = 2;                        // of values; two of codes belong to a block
    constexpr bool kChunks = kType == WeightType::Q6_K;
    constexpr bool kBlocks = !is_float(kType) && !kChunks;
    const int n = n_cols / kEach;
    for (int first = 0; first < n; first += kLoads * kThreads) {
        Words4 words[kLoads] = {};
        float scales[kLoads] = {};
        Floats2 block{};
        const int b = first / 2 + thread;
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads + thread;
            if (i < n) {
                words[k] = values[i];
                if constexpr (kChunks) {
                    scales[k] = token_blocks[i / 2].v[0];
                }
            }
        }
        if (kBlocks && b < n / 2) {
            block = token_blocks[b];
        }
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads + thread;
            if (i < n) {
                const int at = StreamActivations::offset(kType, i * kEach);
                x.write(at, words[k]);
                if constexpr (kChunks) {
                    blocks.write(at / 2, StreamChunk::of(i, scales[k], words[k]));
                }
            }
        }
        if (kBlocks && b < n / 2) {
            blocks.write(8 * b, stream_block<kType>(b, block));
        }
    }
}

// Activations of a lane's piece.
struct StreamX {
    SharedBytes values;  // floats or codes; chunks of 16 bytes, 512 bytes apart
    SharedBytes blocks;

    LK_BOTH Words4 codes(int chunk) const { return values.read<Words4>(512 * chunk); }
    LK_BOTH Floats4 floats(int chunk) const { return values.read<Floats4>(512 * chunk); }
};

}  // namespace lk::cuda
