// The portable table, the reference for every other one, and its plain loops: activations and elementwise operations.
// Matmuls and attention are in the other portable files, in vectors that every compiler has (simd_portable.h).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_portable.h"
#include "base/finite.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cpu {

namespace {

// The bits of |x|. They order like magnitudes, with NaN above infinity. Signed: SSE2 has no maximum of unsigned
// integers.
int32_t magnitude_bits(float x) {
    return bits_as<int32_t>(x) & 0x7fffffff;
}

// Quantizes n activations with one scale. Returns the scale, largest / 127; it is NaN or infinite if an activation is.
float quantize_block(const float* x, int n, int8_t* q) {
    int32_t most = 0;
    for (int i = 0; i < n; ++i) {
        most = std::max(most, magnitude_bits(x[i]));
    }
    const float largest = bits_as<float>(most);
    const float inverse = finite_quotient(127.0f, largest);
    if (inverse == 0) {
        std::fill_n(q, n, int8_t{0});
        return largest / 127.0f;
    }
    for (int i = 0; i < n; ++i) {
        q[i] = static_cast<int8_t>(kv::rounded_even(x[i] * inverse));
    }
    return largest / 127.0f;
}

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum) {
    for (int b = 0; b < n / 32; ++b) {
        const float scale = quantize_block(x + b * 32, 32, q + b * 32);
        q_sum[b] = std::accumulate(q + b * 32, q + b * 32 + 32, 0);
        d[b] = half_to_float(float_to_half(scale));
        sum[b] = half_to_float(float_to_half(scale * static_cast<float>(q_sum[b])));
    }
}

void quantize_super(const float* x, int n, int8_t* q, float* d, int16_t* sums) {
    for (int b = 0; b < n / 256; ++b) {
        d[b] = quantize_block(x + b * 256, 256, q + b * 256);
    }
    for (int i = 0; i < n / 16; ++i) {
        sums[i] = static_cast<int16_t>(std::accumulate(q + i * 16, q + i * 16 + 16, 0));
    }
}

void rms_norm(const float* x, const float* weight, float eps, int dim, float* out) {
    double square = 0;
    for (int i = 0; i < dim; ++i) {
        square += static_cast<double>(x[i]) * x[i];
    }
    const float factor = norm_factor(static_cast<float>(square / dim), eps);
    for (int i = 0; i < dim; ++i) {
        out[i] = x[i] * factor * weight[i];
    }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int dim, float* out) {
    double sum = 0;
    for (int i = 0; i < dim; ++i) {
        sum += x[i];
    }
    const float mean = static_cast<float>(sum / dim);
    double square = 0;
    for (int i = 0; i < dim; ++i) {
        square += static_cast<double>(x[i] - mean) * (x[i] - mean);
    }
    const float factor = norm_factor(static_cast<float>(square / dim), eps);
    for (int i = 0; i < dim; ++i) {
        out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
    }
}

void gelu(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678f));
    }
}

void swiglu(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    }
}

void add(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] += y[i];
    }
}

bool finite(const float* x, int64_t n, int64_t n_rows, int64_t stride) {
    int32_t most = 0;
    for (int64_t r = 0; r < n_rows; ++r) {
        for (int64_t i = 0; i < n; ++i) {
            most = std::max(most, magnitude_bits(x[r * stride + i]));
        }
    }
    return is_finite(bits_as<float>(most));
}

void scale(float* x, int n, float factor) {
    for (int i = 0; i < n; ++i) {
        x[i] *= factor;
    }
}

}  // namespace

const Kernels& portable_kernels() {
    static const Kernels kernels{
        "portable",
        quantize_plain,
        quantize_super,
        portable::matmul,
        rms_norm,
        layer_norm,
        swiglu,
        gelu,
        add,
        finite,
        portable::half_row,
        portable::softmax_part,
        portable::max_of,
        portable::sum,
        scale,
        portable::score_exact,
        portable::accumulate_exact,
        portable::score_floats,
        portable::accumulate_floats,
        portable::half_blocks,
        portable::unpack_codes,
        portable::fold,
        portable::dot_codes,
        portable::score_packed,
        portable::accumulate_packed,
        portable::decode_byte_scales,
        portable::square_sum,
    };
    return kernels;
}

}  // namespace lk::cpu
