// Products of many columns with rows that were unpacked to tiles: kLanes rows side by side, a lane each, so that a
// vector of weights meets one broadcast activation and nothing is summed across lanes.
#pragma once

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

// From this many columns on unpacking pays.
constexpr int kTileMinColumns = 4;

// y[col * y_stride + row] of whole tiles of rows from row_begin on; returns the first row that is left.
int64_t matmul_tiles(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride);

// y[col * y_stride + lane] += sum over i < n of w[i * w_stride + lane] * x[col * x_stride + i], for `lanes` lanes, a
// multiple of 8.
void multiply_floats(const float* w, int w_stride, int n, int lanes, const float* x, int x_stride, int n_cols, float* y,
                     int y_stride);

}  // namespace lk::cpu::LK_SIMD
