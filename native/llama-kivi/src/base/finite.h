// Finite floats and finite quotients. C++17, because device kernels include it.
#pragma once

#include <cfloat>

namespace lk {

constexpr bool is_finite(float x) {
    return x >= -FLT_MAX && x <= FLT_MAX;
}

// a / b, or 0 if the quotient is not finite: b is 0, NaN, or so small that the quotient overflows. Every inverse scale
// is computed with it, so a block whose largest magnitude is below 127 / FLT_MAX has codes of 0 on every device.
constexpr float finite_quotient(float a, float b) {
    const float q = a / b;
    return is_finite(q) ? q : 0.0f;
}

}  // namespace lk
