// The kernels as plain loops: what every other table is checked against.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/kernels.h"

namespace lk::cpu {

namespace {

void quantize_row(const float* x, int n, int8_t* q, float* d, float* sum) {
    for (int b = 0; b < n / 32; ++b) {
        float largest = 0;
        for (int i = 0; i < 32; ++i) {
            largest = std::max(largest, std::fabs(x[b * 32 + i]));
        }
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        int total = 0;
        for (int i = 0; i < 32; ++i) {
            const int code = static_cast<int>(std::nearbyint(x[b * 32 + i] * inverse));
            q[b * 32 + i] = static_cast<int8_t>(code);
            total += code;
        }
        d[b] = largest / 127.0f;
        sum[b] = d[b] * static_cast<float>(total);
    }
}

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y, int64_t y_stride) {
    const bool exact = w.type == WeightType::F32 || w.type == WeightType::F16;
    std::vector<float> row(w.n_cols);
    for (int64_t r = row_begin; r < row_end; ++r) {
        dequantize_row(w.type, w.data + r * w.row_bytes, row.data(), w.n_cols);
        for (int c = 0; c < n_cols; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < w.n_cols; ++i) {
                sum += row[i] * (exact ? x[c].x[i] : x[c].d[i / 32] * static_cast<float>(x[c].q[i]));
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
    const float factor = 1.0f / std::sqrt(static_cast<float>(square / dim) + eps);
    for (int i = 0; i < dim; ++i) {
        out[i] = x[i] * factor * weight[i];
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

void half_row(const float* x, int64_t n, half_t* out) { std::transform(x, x + n, out, float_to_half); }

float softmax_part(float* x, int n, float max) {
    double sum = 0;
    for (int i = 0; i < n; ++i) {
        x[i] = std::exp(x[i] - max);
        sum += x[i];
    }
    return static_cast<float>(sum);
}

float max_of(const float* x, int n) { return *std::max_element(x, x + n); }

float dot(const float* a, const float* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; ++i) {
        sum += a[i] * b[i];
    }
    return sum;
}

void scale(float* x, int n, float factor) {
    for (int i = 0; i < n; ++i) {
        x[i] *= factor;
    }
}

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    for (int t = 0; t < n_tokens; ++t) {
        for (int r = 0; r < n_rows; ++r) {
            float sum = 0;
            for (int c = 0; c < head_size; ++c) {
                sum += q[r * head_size + c] * half_to_float(k[t * head_size + c]);
            }
            scores[r * ld + t] = sum;
        }
    }
}

void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    for (int r = 0; r < n_rows; ++r) {
        for (int t = 0; t < n_tokens; ++t) {
            for (int c = 0; c < head_size; ++c) {
                acc[r * head_size + c] += p[r * ld + t] * half_to_float(v[t * head_size + c]);
            }
        }
    }
}

void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int out_stride) {
    const int per_byte = 8 / bits;
    for (int u = 0; u < n_units; ++u) {
        for (int k = 0; k < per_byte; ++k) {
            for (int i = 0; i < unit_bytes; ++i) {
                out[static_cast<ptrdiff_t>(u) * out_stride + k * unit_bytes + i] =
                    static_cast<uint8_t>((packed[u * unit_bytes + i] >> (bits * k)) & ((1 << bits) - 1));
            }
        }
    }
}

Folded fold(const float* a, const float* b, int n, int8_t* w) {
    float largest = 0;
    float total = 0;
    for (int i = 0; i < n; ++i) {
        largest = std::max(largest, std::fabs(a[i] * b[i]));
        total += a[i] * b[i];
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    const float step = largest / 127.0f;
    int codes = 0;
    for (int i = 0; i < n; ++i) {
        w[i] = static_cast<int8_t>(std::nearbyint(a[i] * b[i] * inverse));
        codes += w[i];
    }
    return {step, total - step * static_cast<float>(codes)};
}

void dot_codes(const uint8_t* codes, const int8_t* w, int n_quads, int lanes, float step, float bias, float* out) {
    for (int lane = 0; lane < lanes; ++lane) {
        int sum = 0;
        for (int quad = 0; quad < n_quads; ++quad) {
            for (int i = 0; i < 4; ++i) {
                sum += codes[(quad * lanes + lane) * 4 + i] * w[quad * 4 + i];
            }
        }
        out[lane] += step * static_cast<float>(sum) + bias;
    }
}

void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s) {
    for (int i = 0; i < n; ++i) {
        s[i] = half_to_float(static_cast<half_t>(scales[i] << 6)) * factor;
    }
}

}  // namespace

const Kernels& portable_kernels() {
    static const Kernels kernels{
        "portable", quantize_row,     matmul,       rms_norm,     swiglu, add,       half_row,          softmax_part, max_of, dot, scale,
        score_exact, accumulate_exact, unpack_codes, fold,         dot_codes, decode_byte_scales,
    };
    return kernels;
}

}  // namespace lk::cpu
