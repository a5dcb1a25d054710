// Numbers that are finite, and quotients that stay so. C++17, for kernels of devices too.
#pragma once

#include <cfloat>

namespace lk {

constexpr bool is_finite(float x) {
    return x >= -FLT_MAX && x <= FLT_MAX;
}

// a / b, or 0 where that is no finite number: b is 0, NaN, or so small that no float holds the quotient. The one rule
// by which scales are inverted: a block whose largest magnitude is below 127 / FLT_MAX has codes of 0 on every device.
constexpr float finite_quotient(float a, float b) {
    const float q = a / b;
    return is_finite(q) ? q : 0.0f;
}

}  // namespace lk
