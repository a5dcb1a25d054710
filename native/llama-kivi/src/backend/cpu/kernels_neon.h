// The NEON table: the portable table, whose loops AArch64 compilers vectorize, plus intrinsics for functions that they
// do not vectorize. Compiled again with LK_DOTPROD for processors with the dot product extension (ARMv8.2); code that
// depends on it is in the table's namespace.
#pragma once

#include <arm_neon.h>

#include "backend/cpu/kernels.h"

#ifdef LK_DOTPROD
#define LK_SIMD dotprod
#else
#define LK_SIMD neon
#endif

namespace lk::cpu::LK_SIMD {

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride);

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld);
void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc);
void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride);
void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias);
void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride);
void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s);
float square_sum(const float* a, const float* b, int n);

// Adds the products of signed bytes to sum, four per lane.
inline int32x4_t add_dot(int32x4_t sum, int8x16_t a, int8x16_t b) {
#ifdef LK_DOTPROD
    return vdotq_s32(sum, a, b);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sum, vpaddq_s32(low, high));
#endif
}

inline float32x4_t load_half4(const void* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(static_cast<const uint16_t*>(p))));
}

}  // namespace lk::cpu::LK_SIMD
