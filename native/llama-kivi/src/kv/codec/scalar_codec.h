// Constants and rounding rules of the page formats, for one element, group or scale at a time. The CPU quantizer
// (kv/codec/quantizer.cpp) and the CUDA quantizer (backend/cuda/append) both compile these functions, without
// floating-point contraction, and produce identical codes. C++17, because nvcc compiles this header.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/finite.h"
#include "base/half.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define LK_HD __host__ __device__
#else
#define LK_HD
#endif

namespace lk::kv {

// ---- constants

inline constexpr float kLargestHalf = 65504.0f;

// Byte scale: 4 exponent and 4 mantissa bits, equal to bits 6 to 13 of a half, times 2^k.
inline constexpr int kByteScaleShift = 6;
inline constexpr float kLargestByteScale = 1.9375f;       // byte 255 at k = 0
inline constexpr float kLeastNormalByteScale = 0x1p-14f;  // smaller scales have steps of 2^-18
inline constexpr float kSubnormalByteSteps = 0x1p18f;
inline constexpr int kByteScaleDropped = 19;           // float mantissa bits that a byte scale drops
inline constexpr uint32_t kByteScaleBias = 112u << 4;  // exponent bias of float minus that of half
inline constexpr float kScaleHeadroom = 8.0f;          // three binades above the largest scale of the first flush

// A zero point is an int8 in quarter steps: |min| / scale stays below 126 / 4 steps.
inline constexpr float kZeroPointLimit = 126.0f;
inline constexpr float kZeroPointSteps = 4.0f;  // per code step
inline constexpr float kZeroPointSlack = 0.125f;

inline constexpr int kRefinedLevels = 16;  // refined channels of keys

// Values of kivi2 and kivi3: level = code - 3/2 and code - 7/2. Steps of the optimal uniform quantizers of a Gaussian
// with four and eight levels, in rms.
inline constexpr float kValueLevelOffset = 1.5f;
inline constexpr float kValueLevelOffset3 = 3.5f;
inline constexpr float kGaussianStep2 = 0.9957f;
inline constexpr float kGaussianStep3 = 0.586f;
inline constexpr float kCentreGain = 0.8f;  // centre values if that cuts their mean square below this fraction

// ggml blocks: Q8_0 has 127 steps up to the largest magnitude; Q4_0 and Q5_0 map the element of largest magnitude to
// -8 and -16 steps; Q4_1 and Q5_1 have 15 and 31 steps from the least element to the largest.
inline constexpr float kQ8Steps = 127.0f;
inline constexpr float kLargestQ8Scale = 515.5f;  // largest half whose 127 steps are in the range of half
inline constexpr int kQ4Zero = 8;
inline constexpr int kQ4Largest = 15;
inline constexpr int kQ5Zero = 16;
inline constexpr int kQ5Largest = 31;

// ---- functions with different names on host and device

LK_HD inline float smaller(float a, float b) {
#ifdef __CUDA_ARCH__
    return fminf(a, b);
#else
    return b < a ? b : a;
#endif
}

LK_HD inline float larger(float a, float b) {
#ifdef __CUDA_ARCH__
    return fmaxf(a, b);
#else
    return a < b ? b : a;
#endif
}

LK_HD inline float clamped(float x, float low, float high) {
    return smaller(larger(x, low), high);
}

LK_HD inline uint32_t float_bits(float x) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(x);
#else
    return bits_as<uint32_t>(x);
#endif
}

LK_HD inline float half_value(half_t bits) {
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(bits));
#else
    return half_to_float(bits);
#endif
}

LK_HD inline half_t rounded_half(float x) {
#ifdef __CUDA_ARCH__
    return __half_as_ushort(__float2half_rn(x));
#else
    return float_to_half(x);
#endif
}

// roundf of |x| < 2^22, in operations that host compilers vectorize.
LK_HD inline float rounded_away(float x) {
#ifdef __CUDA_ARCH__
    return roundf(x);
#else
    // The largest float below a half: a half itself would take the float below 0.5 to 1.
    constexpr uint32_t kBelowHalf = 0x3effffff;
    return static_cast<float>(static_cast<int>(x + bits_as<float>(kBelowHalf | (bits_as<uint32_t>(x) & 0x80000000u))));
#endif
}

// nearbyintf of |x| < 2^22, likewise: above 2^23, floats are integers.
LK_HD inline float rounded_even(float x) {
#ifdef __CUDA_ARCH__
    return nearbyintf(x);
#else
    constexpr float kInteger = 0x1.8p23f;
    return (x + kInteger) - kInteger;
#endif
}

// ---- byte scales

// x * 2^k. On the device k is an exponent of rows of halves, so the product is exact.
LK_HD inline float times_power(float x, int k) {
#ifdef __CUDA_ARCH__
    return x * __int_as_float((127 + k) << 23);
#else
    return ldexpf(x, k);
#endif
}

// Value at k = 0.
LK_HD inline float byte_scale_base(unsigned byte) {
    return half_value(static_cast<half_t>(byte << kByteScaleShift));
}

LK_HD inline float byte_scale_decode(uint8_t byte, int k) {
    return times_power(byte_scale_base(byte), k);
}

// Smallest byte whose value is >= scale; saturates at 255.
LK_HD inline uint8_t byte_scale_round_up(float scale, int k) {
    const float x = times_power(scale, -k);
    if (!(x > 0)) {
        return 0;
    }
    if (x > kLargestByteScale) {
        return 255;
    }
    if (x < kLeastNormalByteScale) {
        return static_cast<uint8_t>(ceilf(x * kSubnormalByteSteps));
    }
    const uint32_t up = (1u << kByteScaleDropped) - 1;
    return static_cast<uint8_t>(((float_bits(x) + up) >> kByteScaleDropped) - kByteScaleBias);
}

// Rounds ties to even; saturates at 255.
LK_HD inline uint8_t byte_scale_round_nearest(float scale, int k) {
    const float x = times_power(scale, -k);
    if (!(x > 0)) {
        return 0;
    }
    if (x > kLargestByteScale) {
        return 255;
    }
    if (x < kLeastNormalByteScale) {
        return static_cast<uint8_t>(nearbyintf(x * kSubnormalByteSteps));
    }
    const uint32_t bits = float_bits(x);
    const uint32_t below_half = (1u << (kByteScaleDropped - 1)) - 1;
    return static_cast<uint8_t>(((bits + below_half + ((bits >> kByteScaleDropped) & 1u)) >> kByteScaleDropped) -
                                kByteScaleBias);
}

// k with kScaleHeadroom above max_scale: 8 * max_scale <= kLargestByteScale * 2^k.
LK_HD inline int byte_scale_exponent(float max_scale) {
    int k = 0;
    if (max_scale > 0) {
        frexpf(kScaleHeadroom * max_scale / kLargestByteScale, &k);
    }
    return k;
}

// ---- groups with a scale and a minimum

LK_HD inline int code_levels(int bits, bool refined) {
    return refined ? kRefinedLevels : 1 << bits;
}

// Code of x: rounded (x - m) / s, clamped to the levels.
LK_HD inline int group_code(float x, float s, float m, int levels) {
    return s > 0 ? static_cast<int>(rounded_even(clamped((x - m) / s, 0.0f, static_cast<float>(levels - 1)))) : 0;
}

// Minimum encoded by a zero point.
LK_HD inline float zero_point_decode(float s, int zero) {
    return s * static_cast<float>(zero) * (1 / kZeroPointSteps);
}

// Smallest scale whose levels cover [min, max]. The zero point rounds down by up to a quarter step; an eighth of a step
// is reserved for that at the top level.
LK_HD inline float byte_pair_span(float min, float max, int levels) {
    return (max - min) / (static_cast<float>(levels - 1) - kZeroPointSlack);
}

// Smallest scale whose zero point reaches the minimum.
LK_HD inline float zero_point_scale(float min) {
    return fabsf(min) * kZeroPointSteps / kZeroPointLimit;
}

// Smallest scale of a byte pair that covers [min, max].
LK_HD inline float byte_pair_scale(float min, float max, int levels) {
    return larger(byte_pair_span(min, max, levels), zero_point_scale(min));
}

// One group of the paper's quantizer (KIVI eq. 1 and 2): scale and minimum are rounded to half before use.
struct HalfPair {
    half_t scale;
    half_t min;
    float s;
    float m;

    LK_HD HalfPair(float low, float high, int levels)
        : scale(rounded_half((high - low) / static_cast<float>(levels - 1))),
          min(rounded_half(low)),
          s(half_value(scale)),
          m(half_value(min)) {}
};

// One group of the refined quantizer; k is the head's scale exponent.
struct BytePair {
    uint8_t scale;
    int8_t zero;
    float s;
    float m;

    // nearest: the scale is the nearest byte to the range, so up to 3% of it is cut. The zero point fits in any case.
    LK_HD BytePair(float low, float high, int levels, int k, bool nearest = false)
        : scale(nearest ? nearest_scale(low, high, levels, k)
                        : byte_scale_round_up(byte_pair_scale(low, high, levels), k)),
          zero(0),
          s(byte_scale_decode(scale, k)),
          m(0) {
        if (s > 0) {
            zero =
                static_cast<int8_t>(clamped(floorf(kZeroPointSteps * low / s), -kZeroPointLimit - 1, kZeroPointLimit));
        }
        m = zero_point_decode(s, zero);
    }

    LK_HD static uint8_t nearest_scale(float low, float high, int levels, int k) {
        const uint8_t span = byte_scale_round_nearest(byte_pair_span(low, high, levels), k);
        const uint8_t least = byte_scale_round_up(zero_point_scale(low), k);
        return span > least ? span : least;
    }
};

// ---- values of kivi2 and kivi3, centred and rotated

LK_HD inline float value_step(double mean_square, int bits = 2) {
    return (bits == 3 ? kGaussianStep3 : kGaussianStep2) * static_cast<float>(sqrt(mean_square));
}

LK_HD inline int value_code(float w, float step, int bits = 2) {
    const float half = static_cast<float>(1 << (bits - 1));
    return static_cast<int>(clamped(floorf(finite_quotient(w, step)), -half, half - 1.0f) + half);
}

// Level of a code, in units of the scale.
LK_HD inline float value_level(int code, int bits = 2) {
    return static_cast<float>(code) - (bits == 3 ? kValueLevelOffset3 : kValueLevelOffset);
}

// Scale of a token: halfway between the unbiased scale, <w, w> / <w, levels>, and the least-squares scale,
// <w, levels> / <levels, levels>, which alone would shrink every value and so the output of attention. square: <w, w>;
// along: <w, levels>; level_square: <levels, levels>.
LK_HD inline float halfway_scale(double square, double along, double level_square) {
    return along > 0 ? static_cast<float>((square / along + along / level_square) / 2) : 0.0f;
}

// Whether to centre. Arguments: medians of the mean squares with and without centring.
LK_HD inline bool centring_pays(float centred, float plain) {
    return centred < kCentreGain * plain;
}

// ---- ggml blocks

LK_HD inline float q8_scale(float largest) {
    return largest / kQ8Steps;
}

LK_HD inline int q8_code(float x, float d) {
    return static_cast<int>(rounded_away(clamped(finite_quotient(x, d), -kQ8Steps, kQ8Steps)));
}

// Types without a minimum map the element of largest magnitude to -zero steps.
LK_HD inline float signed_scale(float largest, int zero) {
    return largest / -static_cast<float>(zero);
}

LK_HD inline int signed_code(float x, float d, int zero) {
    const int code = static_cast<int>(finite_quotient(x, d) + (static_cast<float>(zero) + 0.5f));
    return code < 0 ? 0 : code > 2 * zero - 1 ? 2 * zero - 1 : code;
}

LK_HD inline float q4_scale(float largest) {
    return signed_scale(largest, kQ4Zero);
}

LK_HD inline int q4_code(float x, float d) {
    return signed_code(x, d, kQ4Zero);
}

// Types with a minimum. steps: kQ4Largest or kQ5Largest.
LK_HD inline float span_scale(float least, float largest, int steps) {
    return (largest - least) / static_cast<float>(steps);
}

LK_HD inline int span_code(float x, float least, float d, int steps) {
    const int code = static_cast<int>(std::floor(finite_quotient(x - least, d) + 0.5f));
    return code > steps ? steps : code;
}

// Levels of IQ4_NL, in units of the scale.
inline constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// The levels of four codes from `first` on, one per byte.
constexpr uint32_t iq4_word(int first) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
        word |= static_cast<uint32_t>(static_cast<uint8_t>(kIq4Levels[first + i])) << (8 * i);
    }
    return word;
}

LK_HD inline int iq4_level(int code) {
#ifdef __CUDA_ARCH__
    // The array would be in local memory.
    constexpr uint32_t k0 = iq4_word(0);
    constexpr uint32_t k4 = iq4_word(4);
    constexpr uint32_t k8 = iq4_word(8);
    constexpr uint32_t k12 = iq4_word(12);
    const uint32_t word = code < 8 ? (code < 4 ? k0 : k4) : (code < 12 ? k8 : k12);
    return static_cast<int8_t>(word >> (8 * (code & 3)));
#else
    return kIq4Levels[code];
#endif
}

// Code of the nearest level; the upper one of two equally near.
LK_HD inline int iq4_code(float x, float d) {
    const float q = finite_quotient(x, d);
    int code = 0;
    while (code < 15 && q >= 0.5f * static_cast<float>(iq4_level(code) + iq4_level(code + 1))) {
        ++code;
    }
    return code;
}

// ---- bf16

// Rounds ties to even. x: finite; the result may be infinite.
LK_HD inline uint16_t rounded_bf16(float x) {
    const uint32_t bits = float_bits(x);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace lk::kv
