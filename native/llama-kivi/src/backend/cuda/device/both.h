// Functions for kernels that hosts have too, so that tests run them without a GPU. C++17, with or without CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __CUDACC__
#include "backend/cuda/device/halves.cuh"
#define LK_BOTH __device__ inline
#define LK_UNROLL _Pragma("unroll")
#else
#include "base/half.h"
#define LK_BOTH inline
#define LK_UNROLL
#endif

namespace lk::cuda {

// 16 bytes, which a lane reads at once.
struct alignas(16) Words4 {
    unsigned w[4];
};
struct alignas(16) Floats4 {
    float v[4];
};
struct alignas(8) Floats2 {
    float v[2];
};

// sum plus the dot product of four unsigned bytes of `a` and four signed bytes of `b`.
LK_BOTH int dot_unsigned(unsigned a, unsigned b, int sum) {
#ifdef __CUDACC__
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
#else
    for (int k = 0; k < 32; k += 8) {
        sum += static_cast<int>(a >> k & 255) * static_cast<int8_t>(b >> k & 255);
    }
#endif
    return sum;
}

// The same with signed bytes of `a`.
LK_BOTH int dot_signed(unsigned a, unsigned b, int sum) {
#ifdef __CUDACC__
    return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#else
    for (int k = 0; k < 32; k += 8) {
        sum += static_cast<int8_t>(a >> k & 255) * static_cast<int8_t>(b >> k & 255);
    }
    return sum;
#endif
}

LK_BOTH float half_value(unsigned bits) {
#ifdef __CUDACC__
    return half_bits_to_float(static_cast<uint16_t>(bits));
#else
    return half_to_float(static_cast<half_t>(bits));
#endif
}

// Bytes of a (0 to 3) and b (4 to 7); a nibble of the selector per byte, the lowest one first.
LK_BOTH unsigned pick_bytes(unsigned a, unsigned b, unsigned selector) {
#ifdef __CUDACC__
    return __byte_perm(a, b, selector);
#else
    unsigned picked = 0;
    for (int k = 0; k < 4; ++k) {
        const unsigned from = selector >> (4 * k) & 7;
        picked |= ((from < 4 ? a : b) >> (from % 4 * 8) & 255) << (8 * k);
    }
    return picked;
#endif
}

// 32 bits of low (0 to 31) and high (32 to 63) from `shift` on, less than 32.
LK_BOTH unsigned funnel_right(unsigned low, unsigned high, int shift) {
#ifdef __CUDACC__
    return __funnelshift_r(low, high, shift);
#else
    return static_cast<unsigned>((uint64_t{high} << 32 | low) >> shift);
#endif
}

// Byte k of a word as a float.
LK_BOTH float byte_value(unsigned word, int k) {
#ifdef __CUDACC__
    float x = 0;
    // The compiler's own choice takes three instructions.
    asm("cvt.rn.f32.u8 %0, %1;" : "=f"(x) : "r"(word >> 8 * k));
    return x;
#else
    return static_cast<float>(word >> (8 * k) & 255);
#endif
}

// a b + c, rounded once.
LK_BOTH float fused(float a, float b, float c) {
#ifdef __CUDACC__
    return __fmaf_rn(a, b, c);
#else
    return std::fma(a, b, c);
#endif
}

// The integer nearest to x; the even one of two. NaN gives 0, a number out of range the nearest int.
LK_BOTH int nearest(float x) {
#ifdef __CUDACC__
    return __float2int_rn(x);
#else
    using Limits = std::numeric_limits<int>;
    const float n = std::nearbyint(x);
    if (std::isnan(n)) {
        return 0;
    }
    return n >= 0x1p31f ? Limits::max() : n <= -0x1p31f ? Limits::min() : static_cast<int>(n);
#endif
}

// The larger magnitude; NaN is ignored.
LK_BOTH float larger_magnitude(float a, float b) {
#ifdef __CUDACC__
    return fmaxf(fabsf(a), fabsf(b));
#else
    return std::fmax(std::fabs(a), std::fabs(b));
#endif
}

LK_BOTH float float_of_bits(unsigned bits) {
#ifdef __CUDACC__
    return __uint_as_float(bits);
#else
    float x = 0;
    std::memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

}  // namespace lk::cuda
