// Vectors of 16 bytes that compilers map to SSE2, NEON or plain registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace lk::cpu::portable {

inline constexpr int kVectorBytes = 16;
using Shorts = int16_t __attribute__((vector_size(kVectorBytes)));
using Ints = int32_t __attribute__((vector_size(kVectorBytes)));
using Floats = float __attribute__((vector_size(kVectorBytes)));
inline constexpr int kFloats = kVectorBytes / sizeof(float);

template <class Vector>
Vector load(const void* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <class Vector>
void store(void* to, Vector x) {
    std::memcpy(to, &x, sizeof x);
}

inline Floats to_floats(Ints x) {
    return __builtin_convertvector(x, Floats);
}

inline Floats magnitude(Floats x) {
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(x) & 0x7fffffff);
}

// b if it is larger, otherwise a.
inline Floats larger(Floats a, Floats b) {
    return b > a ? b : a;
}

inline float lane_max(Floats x) {
    return std::max(std::max(x[0], x[1]), std::max(x[2], x[3]));
}

inline float lane_sum(Floats x) {
    return (x[0] + x[2]) + (x[1] + x[3]);
}

// The bits of a half, shifted into the exponent and mantissa of a float, are its magnitude divided by kHalfFactor.
inline constexpr int kHalfShift = 13;
inline constexpr float kHalfFactor = 0x1p112f;

// Widens four halves; exact, as half_to_float.
inline Floats half_to_floats(const half_t* x) {
    constexpr int kInfiniteHalf = 0x7c00;
    using FourHalves = half_t __attribute__((vector_size(8)));
    const Ints bits = __builtin_convertvector(load<FourHalves>(x), Ints);
    const Ints magnitude = bits & 0x7fff;
    const Ints not_finite = (magnitude >= kInfiniteHalf) & 0x7f800000;
    const Floats value = reinterpret_cast<Floats>(magnitude << kHalfShift) * kHalfFactor;
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(value) | not_finite | (bits & 0x8000) << 16);
}

}  // namespace lk::cpu::portable
