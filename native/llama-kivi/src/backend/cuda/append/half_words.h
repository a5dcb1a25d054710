// Words of two halves, for the kernels that quantize pages and for the tests that run these kernels on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kv/codec/scalar_codec.h"

// Unrolls a loop on the device, where arrays are in registers if their indices are constant.
#ifdef __CUDA_ARCH__
#define LK_UNROLL _Pragma("unroll")
#else
#define LK_UNROLL
#endif

namespace lk::cuda {

#ifndef __CUDA_ARCH__
template <class Operation>
uint32_t each_half(uint32_t a, uint32_t b, Operation operation) {
    const auto one = [&](int shift) {
        return static_cast<uint32_t>(kv::rounded_half(operation(kv::half_value(static_cast<half_t>(a >> shift)),
                                                                kv::half_value(static_cast<half_t>(b >> shift)))))
               << shift;
    };
    return one(0) | one(16);
}
#endif

#ifdef __CUDA_ARCH__
__device__ inline __half2 as_halves(uint32_t x) {
    return *reinterpret_cast<const __half2*>(&x);
}
__device__ inline uint32_t as_word(__half2 x) {
    return *reinterpret_cast<const uint32_t*>(&x);
}
#endif

LK_HD inline uint32_t subtract_halves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    return as_word(__hsub2(as_halves(a), as_halves(b)));
#else
    return each_half(a, b, [](float x, float y) { return x - y; });
#endif
}

// One rounding: the float product of two halves is exact.
LK_HD inline uint32_t multiply_halves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    return as_word(__hmul2(as_halves(a), as_halves(b)));
#else
    return each_half(a, b, [](float x, float y) { return x * y; });
#endif
}

// Of a number and NaN, the number.
LK_HD inline uint32_t smaller_halves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    return as_word(__hmin2(as_halves(a), as_halves(b)));
#else
    return each_half(a, b, [](float x, float y) { return std::fmin(x, y); });
#endif
}

LK_HD inline uint32_t larger_halves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    return as_word(__hmax2(as_halves(a), as_halves(b)));
#else
    return each_half(a, b, [](float x, float y) { return std::fmax(x, y); });
#endif
}

LK_HD inline float low_half(uint32_t word) {
    return kv::half_value(static_cast<half_t>(word));
}

LK_HD inline float high_half(uint32_t word) {
    return kv::half_value(static_cast<half_t>(word >> 16));
}

// Bytes of a (0 to 3) and b (4 to 7), selected by the digits of `select`.
LK_HD inline uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t select) {
#ifdef __CUDA_ARCH__
    return __byte_perm(a, b, select);
#else
    const uint64_t both = a | static_cast<uint64_t>(b) << 32;
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
        out |= static_cast<uint32_t>(both >> (8 * (select >> (4 * i) & 7)) & 0xff) << (8 * i);
    }
    return out;
#endif
}

LK_HD inline int count_bits(uint32_t x) {
#ifdef __CUDA_ARCH__
    return __popc(x);
#else
    return __builtin_popcount(x);
#endif
}

// x << 1, with the sign bit of a float.
LK_HD inline uint32_t shift_in_sign(uint32_t x, float sign) {
#ifdef __CUDA_ARCH__
    return __funnelshift_l(kv::float_bits(sign), x, 1);
#else
    return x << 1 | kv::float_bits(sign) >> 31;
#endif
}

// n: 1 to 31.
LK_HD inline uint32_t rotated_left(uint32_t x, int n) {
#ifdef __CUDA_ARCH__
    return __funnelshift_l(x, x, n);
#else
    return x << n | x >> (32 - n);
#endif
}

// Square roots and quotients with errors up to 2^-22.
LK_HD inline float near_root(float x) {
#ifdef __CUDA_ARCH__
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
#else
    return std::sqrt(x);
#endif
}

LK_HD inline float near_quotient(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fdividef(a, b);
#else
    return a / b;
#endif
}

// Hides from the compiler that it has converted x to double before: a double takes two registers as long as it lives.
LK_HD inline float own_value(float x) {
#ifdef __CUDA_ARCH__
    asm("" : "+f"(x));
#endif
    return x;
}

LK_HD inline float fused(float a, float b, float c) {
#ifdef __CUDA_ARCH__
    return __fmaf_rn(a, b, c);
#else
    return std::fma(a, b, c);
#endif
}

// sum + a * b for factors whose product is exact in double, so that the fused operation rounds as two operations do.
LK_HD inline double plus_product(double sum, double a, double b) {
#ifdef __CUDA_ARCH__
    return __fma_rn(a, b, sum);
#else
    return sum + a * b;
#endif
}

// The codes of a q8_0 ring: int8 -> half. `flipped`: a word of four codes with their sign bits flipped, i.e. code +
// 128; `byte`: the first of two neighbouring codes. A byte below 0x64 is the half 1024 + byte.
LK_HD inline uint32_t ring_halves(uint32_t flipped, int byte, uint32_t scale) {
    constexpr uint32_t kZero = 0x64806480;  // 1024 + 128, twice
    const uint32_t select = byte == 0 ? 0x4140u : byte == 1 ? 0x4241u : 0x4342u;
    return multiply_halves(subtract_halves(select_bytes(flipped, 0x64646464u, select), kZero), scale);
}

inline constexpr uint32_t kSignBits = 0x80808080u;

// Loads and stores of aligned words.
struct Words2 {
    uint32_t x;
    uint32_t y;
};

LK_HD inline Words2 load_two(const void* from) {
#ifdef __CUDA_ARCH__
    const uint2 words = *static_cast<const uint2*>(from);
    return {words.x, words.y};
#else
    Words2 words;
    std::memcpy(&words, from, sizeof words);
    return words;
#endif
}

// to: aligned to 16 bytes.
LK_HD inline void store_four(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#ifdef __CUDA_ARCH__
    *static_cast<uint4*>(to) = make_uint4(a, b, c, d);
#else
    const uint32_t words[] = {a, b, c, d};
    std::memcpy(to, words, sizeof words);
#endif
}

}  // namespace lk::cuda
