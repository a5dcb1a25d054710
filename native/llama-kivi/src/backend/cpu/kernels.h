// The inner loops of the CPU backend, one table per instruction set, selected at run time. The portable table is the
// reference; the others match it exactly in integer parts and to rounding in floating-point parts.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "backend/backend.h"
#include "base/finite.h"
#include "base/half.h"

namespace lk::cpu {

// Activations of one token for matmuls with quantized weights, in ggml's two forms, so that results agree with other
// engines to rounding. Only the forms that the matmul's weights need are filled.
struct QuantizedRow {
    const float* x;  // [n] unquantized, for F32, F16 and BF16 weights
    // For weights in blocks of 32 (Q8_0 and Q8_1 activations): x ~ d q, d rounded to half.
    struct {
        const int8_t* q;       // [n]
        const float* d;        // [n/32]
        const float* sum;      // [n/32] d * q_sum, rounded to half
        const int32_t* q_sum;  // [n/32] sum of the block's q
    } plain;
    // For weights in blocks of 256 (Q8_K activations): x ~ d q.
    struct {
        const int8_t* q;      // [n]
        const float* d;       // [n/256]
        const int16_t* sums;  // [n/16] sum of each 16 q
    } super;
};

// The activation form for matmuls with a weight type.
enum class ActivationForm { exact, plain, super };

inline ActivationForm activation_form(WeightType type) {
    switch (type) {
    case WeightType::F32:
    case WeightType::F16:
    case WeightType::BF16:
        return ActivationForm::exact;
    default:
        return weight_type_traits(type)->block_elements == kSuperBlock ? ActivationForm::super : ActivationForm::plain;
    }
}

// The factor of a norm, 1 / sqrt(mean_square + eps). NaN if the mean square overflows, so that the row does not
// silently become zeros.
inline float norm_factor(float mean_square, float eps) {
    return is_finite(mean_square) ? 1.0f / std::sqrt(mean_square + eps) : std::numeric_limits<float>::quiet_NaN();
}

// Every function except max propagates NaN and infinity: results computed from them are NaN or infinite.
struct Kernels {
    const char* name;

    // Quantize x[n] to the plain form (n % 32 == 0) and the super form (n % 256 == 0).
    void (*quantize_plain)(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum);
    void (*quantize_super)(const float* x, int n, int8_t* q, float* d, int16_t* sums);
    // y[token * y_stride + row] = dot(weight row, x[token]) for weight rows [row_begin, row_end) and n_cols tokens.
    void (*matmul)(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                   int64_t y_stride);

    void (*rms_norm)(const float* x, const float* weight, float eps, int dim, float* out);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int dim, float* out);
    void (*swiglu)(float* gate, const float* up, int64_t n);
    void (*gelu)(float* x, int64_t n);  // x/2 (1 + erf(x / sqrt 2)), absolute error below 1e-6 |x|
    void (*add)(float* x, const float* y, int64_t n);
    // Whether all of x[n_rows, n] is finite; rows are `stride` apart.
    bool (*finite)(const float* x, int64_t n, int64_t n_rows, int64_t stride);
    void (*half_row)(const float* x, int64_t n, half_t* out);

    // x[i] = exp(x[i] - max); returns the sum.
    float (*softmax_part)(float* x, int n, float max);
    float (*max)(const float* x, int n);
    float (*sum)(const float* x, int n);
    // x[n] *= factor.
    void (*scale)(float* x, int n, float factor);

    // scores[r * ld + t] = dot(q[r], k[t]) for r < n_rows, t < n_tokens; q [n_rows, D], k [n_tokens, D].
    void (*score_exact)(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores,
                        int ld);
    // acc[r, D] += sum_t p[r * ld + t] v[t]; v [n_tokens, D].
    void (*accumulate_exact)(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows,
                             float* acc);
    // The same for rows of floats.
    void (*score_floats)(const float* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores,
                         int ld);
    void (*accumulate_floats)(const float* v, int n_tokens, int head_size, const float* p, int ld, int n_rows,
                              float* acc);

    // Dequantizes n/32 blocks of a cache type (kv/codec/stock_blocks.h) to halves.
    void (*half_blocks)(lk_cache_type type, const uint8_t* blocks, int n, half_t* out);
    // Unpacks n_units units of unit_bytes bytes of packed codes (kivi_format.h) to one byte per code. 3-bit codes are
    // in units of 48 bytes: blocks of values. Code i of unit u goes to out[u * unit_stride + i / 32 * piece_stride + i
    // % 32].
    void (*unpack_codes)(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                         int piece_stride);
    // Folds scales and zero points into a [n_rows, a_stride], so that dot_codes can use int8 weights. For row r and
    // i < n: a[r, i] * scale[i] ~ w[r, i] * step[r]; bias[r] = sum of a[r, i] * zero[i], plus the rounding error of the
    // weights times `middle`, the middle of the code range. n % 16 == 0.
    void (*fold)(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
                 int8_t* w, float* step, float* bias);
    // out[r * out_stride + lane] += bias[r] + step[r] * sum over quads and i < 4 of
    // codes[quad * quad_stride + 4 * lane + i] * w[r * w_stride + 4 * quad + i]. lanes % 8 == 0.
    void (*dot_codes)(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
                      const float* step, const float* bias, int n_rows, float* out, int out_stride);
    // Scores of a tile of packed keys, 16 or 32 tokens (kivi_format.h): scores[r * ld + t] = bias[r] + step[r] * sum
    // over code rows i < 4 * n_quads of code[i, t] * w[r * w_stride + i].
    void (*score_packed)(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                         const float* step, const float* bias, int n_rows, float* scores, int ld);
    // Sums of n_blocks * 8 channels of packed values, one or two units of 16 tokens, unit_bytes apart:
    // acc[r * acc_stride + c] += bias[r] + step[r] * sum over tokens t of code[t, c] * w[r * w_stride + t].
    void (*accumulate_packed)(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits,
                              const int8_t* w, int w_stride, const float* step, const float* bias, int n_rows,
                              float* acc, int acc_stride);
    // s[n] = decoded byte scales times factor. n % 8 == 0.
    void (*decode_byte_scales)(const uint8_t* scales, int n, float factor, float* s);
    // Sum of (a[i] * b[i])^2. n % 16 == 0.
    float (*square_sum)(const float* a, const float* b, int n);
};

const Kernels& portable_kernels();
#ifdef LK_HAVE_AVX2
namespace avx2 {
const Kernels& kernels();
}
namespace vnni {
const Kernels& kernels();
}
#endif
#ifdef LK_HAVE_NEON
namespace neon {
const Kernels& kernels();
}
namespace dotprod {
const Kernels& kernels();
}
#endif

// A kernel table and its name in LLAMA_KIVI_CPU.
struct NamedKernels {
    const char* id;
    const Kernels* kernels;
};

// The tables that this processor supports, fastest first, the portable one last.
std::vector<NamedKernels> available_kernels();

// The table that LLAMA_KIVI_CPU names, or the fastest one. Throws LK_INVALID_ARGUMENT for an unknown name.
const Kernels& select_kernels();

}  // namespace lk::cpu
