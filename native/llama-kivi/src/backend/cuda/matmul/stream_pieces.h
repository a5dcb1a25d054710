// A lane's piece of a step of multiply_stream: weights, activations, and their dot product. Layouts: quant/blocks.h and
// plan/stream_plan.h. C++17 for hosts and devices; the tests run it without a GPU.
#pragma once

#include "backend/cuda/device/both.h"
#include "backend/cuda/plan/stream_plan.h"

namespace lk::cuda {

// Activations of a piece: kChunks times 16 codes, and the scales and sums of kBlocks blocks.
template <int kChunks, int kBlocks>
struct CodesX {
    Words4 codes[kChunks];
    float scales[kBlocks];
    float sums[kBlocks];

    // x: codes in shared memory. block: the first block.
    LK_BOTH CodesX(const uint8_t* x, const uint8_t* blocks, int step, int lane, int block) {
        LK_UNROLL
        for (int c = 0; c < kChunks; ++c) {
            codes[c] = *reinterpret_cast<const Words4*>(x + (step * kChunks + c) * 512 + lane * 16);
        }
        if constexpr (kBlocks == 1) {
            const auto* const b = reinterpret_cast<const float*>(blocks + 8 * block);
            scales[0] = b[0];
            sums[0] = b[1];
        } else {
            LK_UNROLL
            for (int k = 0; k < kBlocks; k += 2) {
                const auto b = *reinterpret_cast<const Floats4*>(blocks + 8 * (block + k));
                scales[k] = b.v[0];
                sums[k] = b.v[1];
                scales[k + 1] = b.v[2];
                sums[k + 1] = b.v[3];
            }
        }
    }
};

// Eight elements of F16 or BF16.
template <WeightType kType>
struct StreamPiece {
    static_assert(is_float(kType));
    struct X {
        Floats4 fours[2];
        LK_BOTH X(const uint8_t* x, const uint8_t*, int step, int lane) {
            fours[0] = *reinterpret_cast<const Floats4*>(x + step * 1024 + lane * 16);
            fours[1] = *reinterpret_cast<const Floats4*>(x + step * 1024 + 512 + lane * 16);
        }
    };
    Words4 words;

    LK_BOTH void load(const uint8_t* row, int lane) { words = *reinterpret_cast<const Words4*>(row + 16 * lane); }

    LK_BOTH float dot(const X& x, int) const {
        float sum = 0;
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            const unsigned w = words.w[k];
            const float low = kType == WeightType::F16 ? half_value(w & 0xffffu) : float_of_bits(w << 16);
            const float high = kType == WeightType::F16 ? half_value(w >> 16) : float_of_bits(w & 0xffff0000u);
            sum += low * x.fours[k / 2].v[k % 2 * 2];
            sum += high * x.fours[k / 2].v[k % 2 * 2 + 1];
        }
        return sum;
    }
};

// One block.
template <>
struct StreamPiece<WeightType::Q8_0> {
    struct X : CodesX<2, 1> {
        LK_BOTH X(const uint8_t* x, const uint8_t* blocks, int step, int lane)
            : CodesX(x, blocks, step, lane, step * 32 + lane) {}
    };
    unsigned words[8];
    float d;

    LK_BOTH void load(const uint8_t* row, int lane) {
        const uint8_t* const b = row + lane * static_cast<int>(sizeof(BlockQ8_0));
        read_words(b + 2, words);
        d = read_half(b);
    }

    LK_BOTH float dot(const X& x, int) const {
        int sum = 0;
        LK_UNROLL
        for (int k = 0; k < 8; ++k) {
            sum = dot_signed(words[k], x.codes[k / 4].w[k % 4], sum);
        }
        return d * x.scales[0] * static_cast<float>(sum);
    }
};

// One block. Codes have an offset of 8.
template <>
struct StreamPiece<WeightType::Q4_0> {
    struct X : CodesX<2, 1> {
        LK_BOTH X(const uint8_t* x, const uint8_t* blocks, int step, int lane)
            : CodesX(x, blocks, step, lane, step * 32 + lane) {}
    };
    unsigned words[4];
    float d;

    LK_BOTH void load(const uint8_t* row, int lane) {
        const uint8_t* const b = row + lane * static_cast<int>(sizeof(BlockQ4_0));
        read_words(b + 2, words);
        d = read_half(b);
    }

    LK_BOTH float dot(const X& x, int) const {
        int low = 0;
        int high = 0;  // times 16: high nibbles are not shifted
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            low = dot_unsigned(words[k] & 0x0f0f0f0fu, x.codes[0].w[k], low);
            high = dot_unsigned(words[k] & 0xf0f0f0f0u, x.codes[1].w[k], high);
        }
        return d * (x.scales[0] * (static_cast<float>(low) + 0.0625f * static_cast<float>(high)) - 8 * x.sums[0]);
    }
};

// Two sub-blocks of 32 that share their bytes.
template <bool kFive>
struct StreamPieceK {
    struct X : CodesX<4, 2> {
        LK_BOTH X(const uint8_t* x, const uint8_t* blocks, int step, int lane)
            : CodesX(x, blocks, step, lane, step * 64 + 2 * lane) {}
    };
    Words4 header;
    Words4 codes[2];
    Words4 fifth[kFive ? 2 : 1];

    LK_BOTH void load(const uint8_t* row, int lane) {
        constexpr int kBytes = kFive ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K);
        const uint8_t* const b = row + lane / 4 * kBytes;
        header = *reinterpret_cast<const Words4*>(b);
        LK_UNROLL
        for (int half = 0; half < 2; ++half) {
            codes[half] = *reinterpret_cast<const Words4*>(b + 16 + (kFive ? 32 : 0) + lane % 4 * 32 + half * 16);
            if constexpr (kFive) {
                fifth[half] = *reinterpret_cast<const Words4*>(b + 16 + half * 16);
            }
        }
    }

    LK_BOTH float dot(const X& x, int lane) const {
        const int pair = lane % 4;
        int low = 0;
        int high = 0;  // Q4_K: times 16, because high nibbles are not shifted
        LK_UNROLL
        for (int k = 0; k < 8; ++k) {
            const unsigned w = codes[k / 4].w[k % 4];
            unsigned first = w & 0x0f0f0f0fu;
            unsigned second = w & 0xf0f0f0f0u;
            if constexpr (kFive) {
                const unsigned bits = fifth[k / 4].w[k % 4] >> 2 * pair;
                first |= bits << 4 & 0x10101010u;
                second = (w >> 4 & 0x0f0f0f0fu) | (bits << 3 & 0x10101010u);
            }
            low = dot_unsigned(first, x.codes[k / 4].w[k % 4], low);
            high = dot_unsigned(second, x.codes[2 + k / 4].w[k % 4], high);
        }
        // 6-bit scales and minima of both sub-blocks; see get_scale_min_k4.
        const int shift = pair % 2 * 16;
        const unsigned a = header.w[1] >> shift;
        const unsigned m = header.w[2] >> shift;
        const unsigned c = header.w[3] >> shift;
        const unsigned scales = pair < 2 ? a & 0x3f3fu : (c & 0x0f0fu) | (a >> 2 & 0x3030u);
        const unsigned minima = pair < 2 ? m & 0x3f3fu : (c >> 4 & 0x0f0fu) | (m >> 2 & 0x3030u);
        const auto byte = [](unsigned bytes, int k) { return static_cast<float>(bytes >> (8 * k) & 63); };
        const float d = half_value(header.w[0] & 0xffffu);
        const float d_min = half_value(header.w[0] >> 16);
        const float products = byte(scales, 0) * x.scales[0] * static_cast<float>(low) +
                               byte(scales, 1) * x.scales[1] * static_cast<float>(high) * (kFive ? 1.0f : 0.0625f);
        return d * products - d_min * (byte(minima, 0) * x.sums[0] + byte(minima, 1) * x.sums[1]);
    }
};

template <>
struct StreamPiece<WeightType::Q4_K> : StreamPieceK<false> {};
template <>
struct StreamPiece<WeightType::Q5_K> : StreamPieceK<true> {};

// 16 elements of each quarter of half a super block.
template <>
struct StreamPiece<WeightType::Q6_K> {
    struct X : CodesX<4, 4> {
        LK_BOTH X(const uint8_t* x, const uint8_t* blocks, int step, int lane)
            : CodesX(x, blocks, step, lane, step * 64 + lane / 2 * 4) {}
    };
    unsigned first[4];   // low 4 bits of quarters 0 and 2
    unsigned second[4];  // of quarters 1 and 3
    unsigned high[4];    // high 2 bits of all quarters, the upper one inverted
    unsigned scales[2];  // of the half super block, a byte per 16 elements
    float d;

    LK_BOTH void load(const uint8_t* row, int lane) {
        const uint8_t* const b = row + lane / 4 * static_cast<int>(sizeof(BlockQ6_K));
        const int part = lane % 4 / 2;
        const int at = lane % 2 * 16;
        read_words(b + part * 64 + at, first);
        read_words(b + part * 64 + 32 + at, second);
        read_words(b + 128 + part * 32 + at, high);
        // Inverting the top bits of q makes it q - 32, signed.
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            high[k] ^= 0xaaaaaaaau;
        }
        read_words(b + 192 + part * 8, scales);
        d = read_half(b + 208);
    }

    LK_BOTH float dot(const X& x, int lane) const {
        float sum = 0;
        LK_UNROLL
        for (int quarter = 0; quarter < 4; ++quarter) {
            int total = 0;
            LK_UNROLL
            for (int k = 0; k < 4; ++k) {
                // Upper six bits: 4 (q - 32).
                const unsigned low = quarter % 2 == 0 ? first[k] : second[k];
                const unsigned four = quarter < 2 ? low << 2 : low >> 2;
                const unsigned two = high[k] << (6 - 2 * quarter);
                total = dot_signed((four & 0x3c3c3c3cu) | (two & 0xc0c0c0c0u), x.codes[quarter].w[k], total);
            }
            const unsigned byte = scales[quarter / 2] >> (quarter % 2 * 16 + lane % 2 * 8);
            sum += static_cast<float>(static_cast<int8_t>(byte)) * x.scales[quarter] * static_cast<float>(total);
        }
        return d * 0.25f * sum;
    }
};

}  // namespace lk::cuda
