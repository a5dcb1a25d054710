// A lane's piece of a step of multiply_stream: the dot products of weights of several rows and activations. Layouts:
// quant/blocks.h and plan/stream_plan.h. C++17 for hosts and devices; the tests run it without a GPU.
//
// The compiler orders the loads of one row beside the arithmetic of another. Bits of weights that lie beside others are
// masked, but not shifted: the dot product then is a multiple of the result, which the activations' scale makes up for.
// All of these are integers, and powers of two in floats, so they are exact.
#pragma once

#include "backend/cuda/device/both.h"
#include "backend/cuda/plan/stream_plan.h"

namespace lk::cuda {

// Activations of a lane's piece in shared memory; see StreamActivations.
struct StreamX {
    const uint8_t* values;  // floats, or codes; chunks of 16 bytes lie 512 bytes apart
    const uint8_t* blocks;  // of the first activation

    LK_BOTH Words4 codes(int chunk) const { return *reinterpret_cast<const Words4*>(values + 512 * chunk); }
    LK_BOTH Floats4 floats(int chunk) const { return *reinterpret_cast<const Floats4*>(values + 512 * chunk); }
    // Scale and sum of a block.
    LK_BOTH Floats2 block(int k) const { return *reinterpret_cast<const Floats2*>(blocks + 8 * k); }
    // Q6_K: sum of the codes in the lower or upper half of a block.
    LK_BOTH int code_sum(int k, int half) const {
        return *reinterpret_cast<const int16_t*>(blocks + 8 * k + 4 + 2 * half);
    }
    // Scales and sums of two blocks; k: even, as the first block is.
    LK_BOTH Floats4 two_blocks(int k) const { return *reinterpret_cast<const Floats4*>(blocks + 8 * k); }
};

// A block of 32 activations in shared memory.
template <WeightType kType>
struct StreamBlock {
    // How many times the result the integer dot products of StreamPiece are, for block i.
    LK_BOTH static constexpr float multiple(int i) {
        return kType == WeightType::Q4_0   ? 16.0f
               : kType == WeightType::Q4_K ? (i % 2 == 0 ? 1.0f : 16.0f)
               : kType == WeightType::Q5_K ? (i % 2 == 0 ? 8.0f : 16.0f)
               : kType == WeightType::Q6_K ? (i % 4 < 2 ? 1.0f : 16.0f)
                                           : 1.0f;
    }
    // scale: of the codes. sum: of the dequantized values.
    LK_BOTH static void store(uint8_t* blocks, int i, float scale, float sum) {
        auto* const to = reinterpret_cast<float*>(blocks) + 2 * i;
        to[0] = scale * (1 / multiple(i));
        if constexpr (kType != WeightType::Q6_K) {
            to[1] = sum;
        }
    }
    // Q6_K has the sums of 16 codes instead, in 16 bits. i: the first one's index / 16.
    LK_BOTH static void store_sum(uint8_t* blocks, int i, const Words4& codes) {
        int sum = 0;
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            sum = dot_signed(codes.w[k], 0x01010101u, sum);
        }
        reinterpret_cast<int16_t*>(blocks)[i / 2 * 4 + 2 + i % 2] = static_cast<int16_t>(sum);
    }
};

constexpr int kStreamRows = StreamStep::kRows;

// Rows of weights in shared memory, from the step's first element on.
struct StreamRows {
    const uint8_t* shared;
    int at[kStreamRows];

    LK_BOTH Words4 words(int r, int offset) const {
        return *reinterpret_cast<const Words4*>(shared + at[r] + offset);
    }
    LK_BOTH EvenBytes bytes(int r, int offset) const { return {shared, at[r] + offset}; }
};

// StreamPiece::add adds the dot product of each row to sum, if `wanted`. Otherwise it may read any bytes.

// Eight elements of F16 or BF16.
template <WeightType kType>
struct StreamPiece {
    static_assert(is_float(kType));

    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const Floats4 fours[2] = {x.floats(0), x.floats(1)};
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const Words4 words = rows.words(r, 16 * lane);
            float product = 0;
            LK_UNROLL
            for (int k = 0; k < 4; ++k) {
                const unsigned w = words.w[k];
                const float low = kType == WeightType::F16 ? half_value(w & 0xffffu) : float_of_bits(w << 16);
                const float high = kType == WeightType::F16 ? half_value(w >> 16) : float_of_bits(w & 0xffff0000u);
                product = fused(low, fours[k / 2].v[k % 2 * 2], product);
                product = fused(high, fours[k / 2].v[k % 2 * 2 + 1], product);
            }
            sum[r] = wanted ? sum[r] + product : sum[r];
        }
    }
};

// One block.
template <>
struct StreamPiece<WeightType::Q8_0> {
    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const Words4 codes[2] = {x.codes(0), x.codes(1)};
        const float scale = x.block(0).v[0];
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const EvenBytes codes_of_block = rows.bytes(r, lane * static_cast<int>(sizeof(BlockQ8_0)) + 2);
            unsigned words[8];
            codes_of_block.read(0, words);
            int product = 0;
            LK_UNROLL
            for (int k = 0; k < 8; ++k) {
                product = dot_signed(words[k], codes[k / 4].w[k % 4], product);
            }
            const float d = read_half(codes_of_block.data(-2));
            sum[r] = wanted ? fused(d * scale, static_cast<float>(product), sum[r]) : sum[r];
        }
    }
};

// One block. Codes have an offset of 8.
template <>
struct StreamPiece<WeightType::Q4_0> {
    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const Words4 codes[2] = {x.codes(0), x.codes(1)};
        const Floats2 block = x.block(0);
        const float offset = -8 * block.v[1];
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const EvenBytes codes_of_block = rows.bytes(r, lane * static_cast<int>(sizeof(BlockQ4_0)) + 2);
            unsigned words[4];
            codes_of_block.read(0, words);
            int low = 0;
            int high = 0;  // times 16
            LK_UNROLL
            for (int k = 0; k < 4; ++k) {
                low = dot_unsigned(words[k] & 0x0f0f0f0fu, codes[0].w[k], low);
                high = dot_unsigned(words[k] & 0xf0f0f0f0u, codes[1].w[k], high);
            }
            const float d = read_half(codes_of_block.data(-2));
            const float product = fused(block.v[0], static_cast<float>(16 * low + high), offset);
            sum[r] = wanted ? fused(d, product, sum[r]) : sum[r];
        }
    }
};

// Two sub-blocks of 32 that share their bytes.
template <bool kFive>
struct StreamPieceK {
    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const int pair = lane % 4;
        const int block = lane / 4 * static_cast<int>(kFive ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        Header headers[kStreamRows];
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            headers[r] = Header(rows.words(r, block), pair);
        }
        int low[kStreamRows] = {};
        int high[kStreamRows] = {};        // times 16
        int low_fifth[kStreamRows] = {};   // times 4^pair
        int high_fifth[kStreamRows] = {};  // times 2 4^pair
        LK_UNROLL
        for (int half = 0; half < 2; ++half) {
            const Words4 x_low = x.codes(half);
            const Words4 x_high = x.codes(2 + half);
            LK_UNROLL
            for (int r = 0; r < kStreamRows; ++r) {
                const Words4 codes = rows.words(r, block + pair * 32 + 16 + (kFive ? 32 : 0) + half * 16);
                LK_UNROLL
                for (int k = 0; k < 4; ++k) {
                    low[r] = dot_unsigned(codes.w[k] & 0x0f0f0f0fu, x_low.w[k], low[r]);
                    high[r] = dot_unsigned(codes.w[k] & 0xf0f0f0f0u, x_high.w[k], high[r]);
                }
                if constexpr (kFive) {
                    const Words4 bits = rows.words(r, block + 16 + half * 16);
                    const unsigned mask = 0x01010101u << 2 * pair;
                    LK_UNROLL
                    for (int k = 0; k < 4; ++k) {
                        low_fifth[r] = dot_unsigned(bits.w[k] & mask, x_low.w[k], low_fifth[r]);
                        high_fifth[r] = dot_unsigned(bits.w[k] & 2 * mask, x_high.w[k], high_fifth[r]);
                    }
                }
            }
        }
        const Floats4 blocks = x.two_blocks(0);
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            if constexpr (kFive) {
                low[r] = 8 * low[r] + (128 >> 2 * pair) * low_fifth[r];
                high[r] += (128 >> 2 * pair) * high_fifth[r];
            }
            const float product = headers[r].product(blocks, low[r], high[r]);
            sum[r] = wanted ? sum[r] + product : sum[r];
        }
    }

private:
    struct Header {
        unsigned d;      // as halves: d, and the factor of the minima
        unsigned bytes;  // the scales of both sub-blocks, then their minima

        Header() = default;
        // See get_scale_min_k4.
        LK_BOTH Header(const Words4& words, int pair) : d(words.w[0]) {
            const unsigned selector = pair % 2 == 0 ? 0x5410u : 0x7632u;
            const unsigned upper = pair < 2 ? 0 : 0x0f0f0f0fu;
            const unsigned a = pick_bytes(words.w[1], words.w[2], selector) >> (pair < 2 ? 0 : 2);
            const unsigned c = pick_bytes(words.w[3], words.w[3] >> 4, selector);
            bytes = ((a & ~upper) | (c & upper)) & 0x3f3f3f3fu;
        }
        LK_BOTH float product(const Floats4& blocks, int low, int high) const {
            const float products = fused(byte_value(bytes, 0) * blocks.v[0], static_cast<float>(low),
                                         byte_value(bytes, 1) * blocks.v[2] * static_cast<float>(high));
            const float minima =
                fused(byte_value(bytes, 2), blocks.v[1], byte_value(bytes, 3) * blocks.v[3]);
            return fused(half_value(d & 0xffffu), products, -(half_value(d >> 16) * minima));
        }
    };
};

template <>
struct StreamPiece<WeightType::Q4_K> : StreamPieceK<false> {};
template <>
struct StreamPiece<WeightType::Q5_K> : StreamPieceK<true> {};

// 16 elements of each quarter of half a super block.
template <>
struct StreamPiece<WeightType::Q6_K> {
    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const int block = lane / 4 * static_cast<int>(sizeof(BlockQ6_K));
        const int part = lane % 4 / 2;
        const int half = lane % 2;
        unsigned high[kStreamRows][4];  // high 2 bits of all quarters
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            rows.bytes(r, block + part * 32 + half * 16).read(128, high[r]);
        }
        int totals[kStreamRows][4];
        LK_UNROLL
        for (int odd = 0; odd < 2; ++odd) {
            unsigned low[kStreamRows][4];  // low 4 bits of quarters odd and odd + 2
            LK_UNROLL
            for (int r = 0; r < kStreamRows; ++r) {
                rows.bytes(r, block + part * 64 + half * 16).read(odd * 32, low[r]);
            }
            LK_UNROLL
            for (int quarter = odd; quarter < 4; quarter += 2) {
                const Words4 codes = x.codes(quarter);
                // Weights have an offset of 32.
                const int offset = x.code_sum(quarter, half) * -(2 << 2 * quarter);
                LK_UNROLL
                for (int r = 0; r < kStreamRows; ++r) {
                    int four = 0;      // times 16 in quarters 2 and 3
                    int two = offset;  // times 4^quarter
                    LK_UNROLL
                    for (int k = 0; k < 4; ++k) {
                        four = dot_unsigned(low[r][k] & (quarter < 2 ? 0x0f0f0f0fu : 0xf0f0f0f0u), codes.w[k], four);
                        two = dot_unsigned(high[r][k] & 0x03030303u << 2 * quarter, codes.w[k], two);
                    }
                    totals[r][quarter] = (odd ? 4 : 16) * two + four;
                }
            }
        }
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const EvenBytes scales = rows.bytes(r, block + part * 8 + half);
            float product = 0;
            LK_UNROLL
            for (int quarter = 0; quarter < 4; ++quarter) {
                const auto scale = *reinterpret_cast<const int8_t*>(scales.data(192 + 2 * quarter));
                product = fused(static_cast<float>(scale) * x.block(quarter).v[0],
                                static_cast<float>(totals[r][quarter]), product);
            }
            const float d = read_half(rows.bytes(r, block).data(208));
            sum[r] = wanted ? fused(d, product, sum[r]) : sum[r];
        }
    }
};

}  // namespace lk::cuda
