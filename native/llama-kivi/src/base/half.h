// IEEE half precision in portable code: rounds to nearest, ties to even; keeps subnormals.
#pragma once

#include <cstdint>
#include <cstring>

namespace lk {

using half_t = uint16_t;  // bits of an IEEE binary16

// std::bit_cast for device kernels, which are compiled as C++17.
template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float half_to_float(half_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 0x1fu;
    const uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact in float
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return bits_as<float>(sign | bits_as<uint32_t>(magnitude));
    }
    if (exponent == 31) {
        return bits_as<float>(sign | 0x7f800000u | (mantissa << 13));
    }
    return bits_as<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

inline half_t float_to_half(float f) {
    const uint32_t bits = bits_as<uint32_t>(f);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) {  // infinity, or NaN (quieted)
        return static_cast<half_t>(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
    }
    if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or above
        return static_cast<half_t>(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) {  // subnormal half: adding 0.5 rounds at 2^-24
        const float shifted = bits_as<float>(magnitude) + 0.5f;
        return static_cast<half_t>(sign | (bits_as<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1u;
    return static_cast<half_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace lk
