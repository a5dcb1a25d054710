#include <cmath>
#include <type_traits>

#include "kv/codec/quantizer.h"

namespace lk::kv {

namespace {

// Butterflies of one stage, with at least four neighbours a side, which compilers vectorize.
template <int kHalf>
void transform_stage(float* b, int n) {
    for (int i = 0; i < n; i += 2 * kHalf) {
        for (int j = i; j < i + kHalf; ++j) {
            const float u = b[j];
            const float v = b[j + kHalf];
            b[j] = u + v;
            b[j + kHalf] = u - v;
        }
    }
}

// The first two stages, of neighbours, in registers.
void transform_fours(float* b, int n) {
    for (int i = 0; i < n; i += 4) {
        const float a = b[i] + b[i + 1];
        const float c = b[i] - b[i + 1];
        const float e = b[i + 2] + b[i + 3];
        const float g = b[i + 2] - b[i + 3];
        b[i] = a + e;
        b[i + 1] = c + g;
        b[i + 2] = a - e;
        b[i + 3] = c - g;
    }
}

}  // namespace

void hadamard(float* x, int n) {
    const int block = n & -n;
    const float norm = 1.0f / std::sqrt(static_cast<float>(block));
    for (int start = 0; start < n; start += block) {
        float* b = x + start;
        if (block < 4) {
            if (block == 2) {
                transform_stage<1>(b, block);
            }
        } else {
            transform_fours(b, block);
        }
        const auto stage = [&]<int kHalf>(std::integral_constant<int, kHalf>) {
            if (kHalf < block) {
                transform_stage<kHalf>(b, block);
            }
        };
        stage(std::integral_constant<int, 4>());
        stage(std::integral_constant<int, 8>());
        stage(std::integral_constant<int, 16>());
        stage(std::integral_constant<int, 32>());
        stage(std::integral_constant<int, 64>());
        stage(std::integral_constant<int, 128>());
        for (int i = 0; i < block; ++i) {
            b[i] *= norm;
        }
    }
}

}  // namespace lk::kv
