// Portable folding of scales into int8 weights, and the scales of keys and values.
#include <algorithm>

#include "backend/cpu/kernels_portable.h"
#include "backend/cpu/simd_portable.h"
#include "base/finite.h"
#include "base/half.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cpu::portable {

namespace {

constexpr int kWeights = 16;  // rounded at a time

float largest_product(const float* a, const float* b, int n) {
    Floats most = {};
    for (int i = 0; i < n; i += kFloats) {
        most = larger(most, magnitude(load<Floats>(a + i) * load<Floats>(b + i)));
    }
    return lane_max(most);
}

struct Rounded {
    Floats values;
    Ints bits;  // the low byte of each lane is the integer
};

// Rounds to nearest, ties to even, for |x| < 128.
Rounded rounded(Floats x) {
    constexpr float kRounder = 0x1.8p23f;  // one unit in the last place is 1
    const Floats shifted = x + kRounder;
    return {shifted - kRounder, reinterpret_cast<Ints>(shifted)};
}

}  // namespace

void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias) {
    for (int r = 0; r < n_rows; ++r, a += a_stride, w += n) {
        const float largest = largest_product(a, scale, n);
        const float inverse = finite_quotient(127.0f, largest);
        step[r] = largest / 127.0f;
        Floats sum = {};
        for (int i = 0; i < n; i += kWeights) {
            int32_t bits[kWeights];
            for (int j = 0; j < kWeights; j += kFloats) {
                const Floats row = load<Floats>(a + i + j);
                const Floats x = row * load<Floats>(scale + i + j);
                const Rounded weights = rounded(inverse == 0 ? Floats{} : x * inverse);
                store(bits + j, weights.bits);
                sum += row * load<Floats>(zero + i + j) + middle * (x - step[r] * weights.values);
            }
            std::transform(bits, bits + kWeights, w + i, [](int32_t x) { return static_cast<int8_t>(x); });
        }
        bias[r] = lane_sum(sum);
    }
}

void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s) {
    for (int i = 0; i < n; ++i) {
        const uint32_t half = static_cast<uint32_t>(scales[i]) << kv::kByteScaleShift;
        s[i] = bits_as<float>(half << kHalfShift) * kHalfFactor * factor;
    }
}

float square_sum(const float* a, const float* b, int n) {
    Floats sum = {};
    for (int i = 0; i < n; i += kFloats) {
        const Floats x = load<Floats>(a + i) * load<Floats>(b + i);
        sum += x * x;
    }
    return lane_sum(sum);
}

}  // namespace lk::cpu::portable
