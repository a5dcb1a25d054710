// A lane's piece of a step of multiply_stream: dot products of weights of several rows and activations. Layouts:
// quant/blocks.h and plan/stream_plan.h. C++17 for hosts and devices; the tests run it without a GPU.
//
// Loads of both rows precede the last arithmetic, so that the compiler overlaps them. Nibbles and bits are masked but
// not shifted, which scales their integer dot product by a power of two; the activations' scale has its inverse (see
// stream_excess). Both are exact.
#pragma once

#include "backend/cuda/device/both.h"
#include "backend/cuda/device/shared_bytes.h"
#include "backend/cuda/matmul/stream_token.h"

namespace lk::cuda {

constexpr int kStreamRows = StreamStep::kRows;

// Rows of weights, from the step's first element on.
struct StreamRows {
    SharedBytes at[kStreamRows];
};

// Sums of two values over a warp: the first one's in lanes 0 to 15, the second one's in the others. The order of adding
// is warp_sum's. Lanes: see lanes.cuh.
template <class Lanes>
LK_BOTH float warp_sums(const Lanes& lanes, float first, float second) {
    const bool upper = lanes.lane() >= 16;
    float x = (upper ? second : first) + lanes.exchange(upper ? first : second, 16);
    for (int mask = 8; mask > 0; mask /= 2) {
        x += lanes.exchange(x, mask);
    }
    return x;
}

// StreamPiece::add adds the dot product of each row to sum, if `wanted`. Otherwise the bytes may be anything.

// Eight elements of F16 or BF16.
template <WeightType kType>
struct StreamPiece {
    static_assert(is_float(kType));

    LK_BOTH static void add(const StreamRows& rows, const StreamX& x, int lane, bool wanted,
                            float (&sum)[kStreamRows]) {
        const Floats4 fours[2] = {x.floats(0), x.floats(1)};
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const Words4 words = rows.at[r].read<Words4>(16 * lane);
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
        const float scale = x.blocks.read<float>();
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const SharedBytes b = rows.at[r] + lane * static_cast<int>(sizeof(BlockQ8_0));
            unsigned words[8];
            read_words(b + 2, 0, words);
            int product = 0;
            LK_UNROLL
            for (int k = 0; k < 8; ++k) {
                product = dot_signed(words[k], codes[k / 4].w[k % 4], product);
            }
            const float d = read_half(b);
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
        const auto block = x.blocks.read<Floats2>();
        const float offset = -8 * block.v[1];
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const SharedBytes b = rows.at[r] + lane * static_cast<int>(sizeof(BlockQ4_0));
            unsigned words[4];
            read_words(b + 2, 0, words);
            int low = 0;
            int high = 0;  // times 16
            LK_UNROLL
            for (int k = 0; k < 4; ++k) {
                low = dot_unsigned(words[k] & 0x0f0f0f0fu, codes[0].w[k], low);
                high = dot_unsigned(words[k] & 0xf0f0f0f0u, codes[1].w[k], high);
            }
            const float d = read_half(b);
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
                const auto codes = rows.at[r].read<Words4>(block + pair * 32 + 16 + (kFive ? 32 : 0) + half * 16);
                LK_UNROLL
                for (int k = 0; k < 4; ++k) {
                    low[r] = dot_unsigned(codes.w[k] & 0x0f0f0f0fu, x_low.w[k], low[r]);
                    high[r] = dot_unsigned(codes.w[k] & 0xf0f0f0f0u, x_high.w[k], high[r]);
                }
                if constexpr (kFive) {
                    const auto bits = rows.at[r].read<Words4>(block + 16 + half * 16);
                    const unsigned mask = 0x01010101u << 2 * pair;
                    LK_UNROLL
                    for (int k = 0; k < 4; ++k) {
                        low_fifth[r] = dot_unsigned(bits.w[k] & mask, x_low.w[k], low_fifth[r]);
                        high_fifth[r] = dot_unsigned(bits.w[k] & 2 * mask, x_high.w[k], high_fifth[r]);
                    }
                }
            }
        }
        const auto blocks = x.blocks.read<Floats4>();
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            if constexpr (kFive) {
                low[r] = 8 * low[r] + (128 >> 2 * pair) * low_fifth[r];
                high[r] += (128 >> 2 * pair) * high_fifth[r];
            }
            const Header header(rows.at[r].read<Words4>(block), pair);
            const float product = header.product(blocks, low[r], high[r]);
            sum[r] = wanted ? sum[r] + product : sum[r];
        }
    }

private:
    struct Header {
        unsigned d;      // as halves: d, and the factor of the minima
        unsigned bytes;  // the scales of both sub-blocks, then their minima

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
            const float minima = fused(byte_value(bytes, 2), blocks.v[1], byte_value(bytes, 3) * blocks.v[3]);
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
        const int part = lane % 4 / 2;
        const int half = lane % 2;
        LK_UNROLL
        for (int r = 0; r < kStreamRows; ++r) {
            const SharedBytes b = rows.at[r] + lane / 4 * static_cast<int>(sizeof(BlockQ6_K));
            unsigned low[2][4];  // low 4 bits of quarters 0 and 2, and of quarters 1 and 3
            unsigned high[4];    // high 2 bits of all quarters
            read_words(b, part * 64 + half * 16, low[0]);
            read_words(b, part * 64 + half * 16 + 32, low[1]);
            read_words(b, 128 + part * 32 + half * 16, high);
            float product = 0;
            LK_UNROLL
            for (int quarter = 0; quarter < 4; ++quarter) {
                const Words4 codes = x.codes(quarter);
                const auto chunk = x.blocks.read<StreamChunk>(256 * quarter);
                int four = 0;            // times 16 in quarters 2 and 3
                int two = chunk.offset;  // times 4^quarter
                LK_UNROLL
                for (int k = 0; k < 4; ++k) {
                    const unsigned mask = quarter < 2 ? 0x0f0f0f0fu : 0xf0f0f0f0u;
                    four = dot_unsigned(low[quarter % 2][k] & mask, codes.w[k], four);
                    two = dot_unsigned(high[k] & 0x03030303u << 2 * quarter, codes.w[k], two);
                }
                const int total = four + (quarter % 2 == 0 ? 16 : 4) * two;
                const auto scale = (b + (part * 8 + half)).read<int8_t>(192 + 2 * quarter);
                product = fused(static_cast<float>(scale) * chunk.scale, static_cast<float>(total), product);
            }
            sum[r] = wanted ? fused(read_half(b + 208), product, sum[r]) : sum[r];
        }
    }
};

}  // namespace lk::cuda
