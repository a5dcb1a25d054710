// Scales of key groups without divisions. Host and device code.
#pragma once

#include "backend/cuda/append/half_words.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// a / s, rounded as a division is, for the rounded inverse of s and these divisors: byte scales, which have five bits
// of mantissa, and the constants of kv::byte_pair_scale.
LK_HD inline float divided(float a, float s, float inverse) {
    const float q = a * inverse;
    return fused(fused(-s, q, a), inverse, q);
}

// 1 / s of a byte scale, rounded; 0 if s is 0.
LK_HD inline float inverse_scale(float s) {
#ifdef __CUDA_ARCH__
    float x;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(s));
    return s > 0 ? fused(x, fused(-s, x, 1.0f), x) : 0.0f;  // the steps of a division that meets no subnormal number
#else
    return s > 0 ? 1.0f / s : 0.0f;
#endif
}

// kv::BytePair with the nearest scale, without divisions. Rows of halves and scales that suit them are far from
// subnormal floats.
struct KeyScale {
    float s;
    float m;
    float inverse;  // of s, or 0
    uint8_t scale;
    uint8_t zero;

    LK_HD KeyScale(float low, float high, bool fine, int k) {
        constexpr float kCoarseSpan = 3.0f - kv::kZeroPointSlack;
        constexpr float kFineSpan = 15.0f - kv::kZeroPointSlack;
        const float span =
            fine ? divided(high - low, kFineSpan, 1 / kFineSpan) : divided(high - low, kCoarseSpan, 1 / kCoarseSpan);
        const float reach = divided(fabsf(low) * kv::kZeroPointSteps, kv::kZeroPointLimit, 1 / kv::kZeroPointLimit);
        const uint8_t nearest = kv::byte_scale_round_nearest(span, k);
        const uint8_t least = kv::byte_scale_round_up(reach, k);
        scale = nearest > least ? nearest : least;
        s = kv::byte_scale_decode(scale, k);
        inverse = inverse_scale(s);
        const float steps = floorf(divided(kv::kZeroPointSteps * low, s, inverse));
        const int z = static_cast<int>(kv::clamped(steps, -kv::kZeroPointLimit - 1, kv::kZeroPointLimit));
        zero = static_cast<uint8_t>(z);
        m = kv::zero_point_decode(s, z);
    }
};

}  // namespace lk::cuda
