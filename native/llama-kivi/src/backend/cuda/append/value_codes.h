// Codes and scales of rotated values, 64 channels of a row per lane; see value_tile.h. Host and device code.
#pragma once

#include "backend/cuda/append/half_words.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

inline constexpr int kPartChannels = 64;

template <int kHead, int kBits>
struct ValueEncoder {
    static constexpr int kParts = kHead / kPartChannels;  // per row, in neighbouring lanes

    // A sum over the row of a sum over the lane's channels.
    template <class Threads, class T>
    LK_HD static T row_sum(const Threads& threads, T sum) {
        if constexpr (kParts == 2) {
            return sum + threads.exchange(sum, 1);
        }
        return sum;
    }
    template <class T>
    LK_HD static T total(const T (&sums)[4]) {
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    // Bit planes of the codes; returns the byte scale. high: the third bits, of channels with c & 4 clear and set, word
    // bit 4 * (c / 8) + c % 4.
    template <class Threads>
    LK_HD static uint8_t encode(const Threads& threads, int part, int k, const float (&w)[kPartChannels],
                                uint32_t (&low)[2][2], uint32_t (&high)[2]) {
        if constexpr (kBits == 2) {
            uint8_t scale = 0;
            if (threads.vote(!encode_in_floats(threads, k, w, low, scale)) == 0) {
                return scale;
            }
        }
        return encode_in_doubles(threads, part, k, w, low, high);
    }

    // Two-bit codes and scale from sums of floats. Returns whether errors of the sums cannot change any of them. An
    // element is `far` if |w| >= step, i.e. if its code is 0 or 3.
    //
    // Each sum has nonnegative terms and at most 24 roundings from term to total, so its relative error is below 2^-19;
    // the step has half of that. <w, levels> is the sum of |w| / 2, and of |w| where it is far:
    //   sum |w| + (sum ||w| - step| - D step) / 2 + far step
    // Its error is below (3/2 sum |w| + D step) 2^-19, and it is at least sum |w| / 2.
    template <class Threads>
    LK_HD static bool encode_in_floats(const Threads& threads, int k, const float (&w)[kPartChannels],
                                       uint32_t (&planes)[2][2], uint8_t& scale) {
        constexpr float kSumError = 0x1p-19f;
        float squares[4] = {};
        LK_UNROLL
        for (int c = 0; c < kPartChannels; ++c) {
            squares[c % 4] = fused(w[c], w[c], squares[c % 4]);
        }
        const float square = row_sum(threads, total(squares));
        const float step = kv::kGaussianStep2 * near_root(square * (1.0f / kHead));
        float magnitudes[4] = {};
        float distances[4] = {};  // from the step
        float nearest = INFINITY;
        uint32_t n_far = 0;
        LK_UNROLL
        for (int j = 0; j < 2; ++j) {
            uint32_t negative = 0;
            uint32_t near = 0;
            LK_UNROLL
            for (int i = 31; i >= 0; --i) {
                const float x = w[32 * j + i];
                const float past = fabsf(x) - step;
                magnitudes[i % 4] += fabsf(x);
                distances[i % 4] += fabsf(past);
                nearest = fminf(nearest, fabsf(past));
                negative = shift_in_sign(negative, x);
                near = shift_in_sign(near, past);
            }
            planes[0][j] = ~near ^ negative;
            planes[1][j] = ~negative;
            n_far += static_cast<uint32_t>(count_bits(~near));
        }
        const float magnitude = row_sum(threads, total(magnitudes));
        const float far = static_cast<float>(row_sum(threads, n_far));
        const float all_steps = step * kHead;
        const float along = magnitude + 0.5f * (row_sum(threads, total(distances)) - all_steps) + far * step;
        const float level_square = 2.0f * far + 0.25f * kHead;
        const float middle = 0.5f * (near_quotient(square, along) + near_quotient(along, level_square));
        const float error = kSumError * (6.0f + 2.0f * near_quotient(all_steps, magnitude));
        scale = kv::byte_scale_round_nearest(middle * (1 - error), k);
        return nearest > kSumError * step && scale == kv::byte_scale_round_nearest(middle * (1 + error), k);
    }

    template <class Threads>
    LK_HD static uint8_t encode_in_doubles(const Threads& threads, int part, int k, const float (&w)[kPartChannels],
                                           uint32_t (&low)[2][2], uint32_t (&high)[2]) {
        double squares[4] = {};
        LK_UNROLL
        for (int c = 0; c < kPartChannels; ++c) {
            const double x = w[c];
            squares[c % 4] = plus_product(squares[c % 4], x, x);
        }
        const double square = row_sum(threads, total(squares));
        const float step = kv::value_step(square / kHead, kBits);
        int level_square = 0;  // of twice the levels
        double along = kBits == 2 ? two_bits(w, step, low, level_square) : three_bits(w, step, low, high, level_square);
        float scale = 0;
        if constexpr (kParts == 2) {
            along = row_sum(threads, along);
            level_square = static_cast<int>(row_sum(threads, static_cast<uint32_t>(level_square)));
            // kv::halfway_scale, one division per lane.
            const double quotient = part == 0 ? square / along : along / (level_square / 4.0);
            const double sum = row_sum(threads, quotient);
            scale = along > 0 ? static_cast<float>(sum / 2) : 0.0f;
        } else {
            scale = kv::halfway_scale(square, along, level_square / 4.0);
        }
        return kv::byte_scale_round_nearest(scale, k);
    }

    // kv::value_code without a division: the quotient rounds to 1 or -1 only if |w| is the step. Levels are -3/2, -1/2,
    // 1/2, 3/2. Returns sum w * level of the lane.
    LK_HD static double two_bits(const float (&w)[kPartChannels], float step, uint32_t (&planes)[2][2],
                                 int& level_square) {
        const float bound = step > 0 ? step : INFINITY;  // zeros: kv::value_code is 2
        double along[4] = {};
        LK_UNROLL
        for (int j = 0; j < 2; ++j) {
            uint32_t negative = 0;
            uint32_t far = 0;
            LK_UNROLL
            for (int i = 31; i >= 0; --i) {
                const float x = w[32 * j + i];
                const bool is_far = x >= bound || x < -bound;
                negative = shift_in_sign(negative, x);
                far = far << 1 | (is_far ? 1u : 0u);
                along[i % 4] = plus_product(along[i % 4], fabs(static_cast<double>(own_value(x))), is_far ? 1.5 : 0.5);
            }
            planes[0][j] = far ^ negative;
            planes[1][j] = ~negative;
            level_square += 8 * count_bits(far) + 32;
        }
        return total(along);
    }

    LK_HD static double three_bits(const float (&w)[kPartChannels], float step, uint32_t (&low)[2][2],
                                   uint32_t (&high)[2], int& level_square) {
        double along[4] = {};
        LK_UNROLL
        for (int c = 0; c < kPartChannels; ++c) {
            const int code = kv::value_code(w[c], step, 3);
            const int twice = 2 * code - 7;
            along[c % 4] = plus_product(along[c % 4], static_cast<double>(own_value(w[c])), 0.5 * twice);
            level_square += twice * twice;
            const uint32_t bits = static_cast<uint32_t>(code);
            low[0][c / 32] |= (bits & 1) << (c % 32);
            low[1][c / 32] |= (bits >> 1 & 1) << (c % 32);
            high[c / 4 % 2] |= (bits >> 2) << (c / 8 * 4 + c % 4);
        }
        return total(along);
    }
};

}  // namespace lk::cuda
