// AVX2 matmul for many tokens. Weight rows are unpacked to tiles of kLanes rows, one row per lane: a vector of weights
// is multiplied by one broadcast activation, and no sum crosses lanes.
#pragma once

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

// Minimum number of tokens for which unpacking is faster.
constexpr int kTileMinColumns = 4;

// Computes y[token * y_stride + row] for whole tiles of rows from row_begin on. Returns the first row not computed.
int64_t matmul_tiles(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride);

// y[col * y_stride + lane] += sum over i < n of w[i * w_stride + lane] * x[col * x_stride + i], for col < n_cols and
// lane < lanes. lanes % 8 == 0.
void multiply_floats(const float* w, int w_stride, int n, int lanes, const float* x, int x_stride, int n_cols, float* y,
                     int y_stride);

}  // namespace lk::cpu::LK_SIMD
