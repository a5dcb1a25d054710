// The inner loops of the CPU backend, one table per instruction set. The portable table is the definition; the others
// match it (exactly in the integer parts, to rounding in the floating ones) and are chosen at run time.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "base/half.h"

namespace lk::cpu {

// Activations of one token, quantized for products with quantized weights: x ~ d * q per block of 32.
struct QuantizedRow {
    const float* x;   // [n], as they were
    const int8_t* q;  // [n]
    const float* d;   // [n/32]
    const float* sum; // [n/32] d times the sum of the block's q
};

// Weights times int8 codes: what folds a scale vector into one side of a dot product with codes.
struct Folded {
    float step;      // w ~ step * int8
    float residual;  // sum(w) - step * sum(int8)
};

struct Kernels {
    const char* name;

    // q[n], d[n/32], sum[n/32] of x[n]; n % 32 == 0.
    void (*quantize_row)(const float* x, int n, int8_t* q, float* d, float* sum);
    // y[col * y_stride + row] = dot(weight row, x[col]) for rows [row_begin, row_end) and all columns.
    void (*matmul)(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                   int64_t y_stride);

    void (*rms_norm)(const float* x, const float* weight, float eps, int dim, float* out);
    void (*swiglu)(float* gate, const float* up, int64_t n);
    void (*add)(float* x, const float* y, int64_t n);
    void (*half_row)(const float* x, int64_t n, half_t* out);

    // x[i] = exp(x[i] - max), returns the sum.
    float (*softmax_part)(float* x, int n, float max);
    float (*max)(const float* x, int n);
    float (*dot)(const float* a, const float* b, int n);
    // x[n] *= factor.
    void (*scale)(float* x, int n, float factor);

    // scores[r * ld + t] = dot(q[r], k[t]) for r < n_rows, t < n_tokens; q [n_rows, D], k [n_tokens, D].
    void (*score_exact)(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld);
    // acc[r, D] += sum_t p[r * ld + t] v[t]; v [n_tokens, D].
    void (*accumulate_exact)(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc);

    // Expands n_units units of unit_bytes packed codes (kivi_format.h) to a byte a code, in order, `out_stride` bytes apart.
    void (*unpack_codes)(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int out_stride);
    // w[i] = a[i] * b[i] as int8 times a common step; n % 8 == 0.
    Folded (*fold)(const float* a, const float* b, int n, int8_t* w);
    // out[lane] += bias + step * sum over quads, i < 4 of codes[quad, lane, i] * w[quad, i]; lanes is 8, 16 or 32.
    void (*dot_codes)(const uint8_t* codes, const int8_t* w, int n_quads, int lanes, float step, float bias, float* out);
    // s[n] = byte scales times factor; n % 8 == 0.
    void (*decode_byte_scales)(const uint8_t* scales, int n, float factor, float* s);
};

const Kernels& portable_kernels();
#ifdef LK_HAVE_AVX2
const Kernels& avx2_kernels();
#endif

// The best table for the processor this runs on.
const Kernels& select_kernels();

}  // namespace lk::cpu
