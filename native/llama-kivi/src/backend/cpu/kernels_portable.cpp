// The portable kernels: plain loops, the reference for every other table.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_portable.h"
#include "base/finite.h"
#include "kv/kivi_format.h"
#include "kv/stock_blocks.h"

namespace lk::cpu {

namespace {

// The bits of |x|. They order like magnitudes, with NaN above infinity.
uint32_t magnitude_bits(float x) {
    return bits_as<uint32_t>(x) & 0x7fffffffu;
}

// Quantizes n activations with one scale. Returns the scale, largest / 127; it is NaN or infinite if an activation is.
float quantize_block(const float* x, int n, int8_t* q) {
    uint32_t most = 0;
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
        q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
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

float activation(const QuantizedRow& x, ActivationForm form, int64_t i) {
    switch (form) {
    case ActivationForm::plain:
        return x.plain.d[i / 32] * static_cast<float>(x.plain.q[i]);
    case ActivationForm::super:
        return x.super.d[i / 256] * static_cast<float>(x.super.q[i]);
    default:
        return x.x[i];
    }
}

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride) {
    const ActivationForm form = activation_form(w.type);
    std::vector<float> row(w.n_cols);
    for (int64_t r = row_begin; r < row_end; ++r) {
        dequantize_row(w.type, w.data + r * w.row_bytes, row.data(), w.n_cols);
        for (int c = 0; c < n_cols; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < w.n_cols; ++i) {
                sum += row[i] * activation(x[c], form, i);
            }
            y[c * y_stride + r] = sum;
        }
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
    uint32_t most = 0;
    for (int64_t r = 0; r < n_rows; ++r) {
        for (int64_t i = 0; i < n; ++i) {
            most = std::max(most, magnitude_bits(x[r * stride + i]));
        }
    }
    return is_finite(bits_as<float>(most));
}

void half_row(const float* x, int64_t n, half_t* out) {
    std::transform(x, x + n, out, float_to_half);
}

float softmax_part(float* x, int n, float max) {
    double sum = 0;
    for (int i = 0; i < n; ++i) {
        x[i] = std::exp(x[i] - max);
        sum += x[i];
    }
    return static_cast<float>(sum);
}

float max_of(const float* x, int n) {
    return *std::max_element(x, x + n);
}

float sum(const float* x, int n) {
    return static_cast<float>(std::accumulate(x, x + n, 0.0));
}

void scale(float* x, int n, float factor) {
    for (int i = 0; i < n; ++i) {
        x[i] *= factor;
    }
}

float to_float(half_t x) {
    return half_to_float(x);
}

float to_float(float x) {
    return x;
}

template <class Element>
void score_rows(const Element* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    for (int t = 0; t < n_tokens; ++t) {
        for (int r = 0; r < n_rows; ++r) {
            float sum = 0;
            for (int c = 0; c < head_size; ++c) {
                sum += q[r * head_size + c] * to_float(k[t * head_size + c]);
            }
            scores[r * ld + t] = sum;
        }
    }
}

template <class Element>
void accumulate_rows(const Element* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    for (int r = 0; r < n_rows; ++r) {
        for (int t = 0; t < n_tokens; ++t) {
            for (int c = 0; c < head_size; ++c) {
                acc[r * head_size + c] += p[r * ld + t] * to_float(v[t * head_size + c]);
            }
        }
    }
}

void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride) {
    constexpr int kHighBytes = 16;  // of 3-bit codes
    const int n_codes = unit_bytes * 8 / bits;
    const int plane_bits = bits == 3 ? 2 : bits;
    const int plane_bytes = n_codes * plane_bits / 8;
    for (int u = 0; u < n_units; ++u) {
        const uint8_t* const from = packed + u * unit_bytes;
        for (int i = 0; i < n_codes; ++i) {
            int code = (from[i % plane_bytes] >> (plane_bits * (i / plane_bytes))) & ((1 << plane_bits) - 1);
            if (bits == 3) {
                code |= ((from[plane_bytes + i % kHighBytes] >> (i / kHighBytes)) & 1) << 2;
            }
            out[u * unit_stride + i / 32 * piece_stride + i % 32] = static_cast<uint8_t>(code);
        }
    }
}

void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias) {
    for (int r = 0; r < n_rows; ++r, a += a_stride, w += n) {
        float largest = 0;
        for (int i = 0; i < n; ++i) {
            largest = std::max(largest, std::fabs(a[i] * scale[i]));
        }
        const float inverse = finite_quotient(127.0f, largest);
        step[r] = largest / 127.0f;
        bias[r] = 0;
        for (int i = 0; i < n; ++i) {
            const float x = a[i] * scale[i];
            w[i] = static_cast<int8_t>(inverse == 0 ? 0.0f : std::nearbyint(x * inverse));
            bias[r] += a[i] * zero[i] + middle * (x - step[r] * static_cast<float>(w[i]));
        }
    }
}

void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride) {
    for (int r = 0; r < n_rows; ++r) {
        for (int lane = 0; lane < lanes; ++lane) {
            int sum = 0;
            for (int i = 0; i < 4 * n_quads; ++i) {
                sum += codes[i / 4 * quad_stride + lane * 4 + i % 4] * w[r * w_stride + i];
            }
            out[r * out_stride + lane] += step[r] * static_cast<float>(sum) + bias[r];
        }
    }
}

void half_blocks(lk_cache_type type, const uint8_t* blocks, int n, half_t* out) {
    const int block_bytes = kv::stock_format(type).block_bytes;
    float x[kBlock];
    for (int i = 0; i < n / kBlock; ++i) {
        kv::decode_blocks(type, blocks + static_cast<size_t>(i) * block_bytes, x, kBlock);
        half_row(x, kBlock, out + i * kBlock);
    }
}

void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s) {
    for (int i = 0; i < n; ++i) {
        s[i] = half_to_float(static_cast<half_t>(scales[i] << 6)) * factor;
    }
}

float square_sum(const float* a, const float* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; ++i) {
        const float x = a[i] * b[i];
        sum += x * x;
    }
    return sum;
}

}  // namespace

const Kernels& portable_kernels() {
    static const Kernels kernels{
        "portable",
        quantize_plain,
        quantize_super,
        matmul,
        rms_norm,
        layer_norm,
        swiglu,
        gelu,
        add,
        finite,
        half_row,
        softmax_part,
        max_of,
        sum,
        scale,
        score_rows<half_t>,
        accumulate_rows<half_t>,
        score_rows<float>,
        accumulate_rows<float>,
        half_blocks,
        unpack_codes,
        fold,
        dot_codes,
        portable::score_packed,
        portable::accumulate_packed,
        decode_byte_scales,
        square_sum,
    };
    return kernels;
}

}  // namespace lk::cpu
