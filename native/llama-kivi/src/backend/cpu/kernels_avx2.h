// The functions of the AVX2 table, one group per file. Compiled again with LK_VNNI, the same files are the AVX-512 VNNI
// table; code that depends on the instruction set is in the table's namespace.
#pragma once

#include "backend/cpu/kernels.h"

#ifdef LK_VNNI
#define LK_SIMD vnni
#else
#define LK_SIMD avx2
#endif

#include "backend/cpu/attention_kernels.h"  // IWYU pragma: export

namespace lk::cpu::LK_SIMD {

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum);
void quantize_super(const float* x, int n, int8_t* q, float* d, int16_t* sums);
void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride);

}  // namespace lk::cpu::LK_SIMD
