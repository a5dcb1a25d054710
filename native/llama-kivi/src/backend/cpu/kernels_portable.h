// Portable kernels outside kernels_portable.cpp; see kernels.h.
#pragma once

#include <cstdint>

#include "backend/cpu/kernels.h"
#include "base/half.h"

#define LK_SIMD portable
#include "backend/cpu/attention_kernels.h"  // IWYU pragma: export

namespace lk::cpu::portable {

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride);
float softmax_part(float* x, int n, float max);
float max_of(const float* x, int n);
float sum(const float* x, int n);
void half_row(const float* x, int64_t n, half_t* out);

}  // namespace lk::cpu::portable
