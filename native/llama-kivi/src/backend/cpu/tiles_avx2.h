// AVX2 matmuls for many tokens, and of float weights. Each sums in the order of the kernels for one token, bit for bit.
#pragma once

#include <type_traits>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

// Minimum number of tokens for which unpacking to tiles is faster.
constexpr int kTileMinColumns = 4;

// Weights in blocks. Rows are unpacked to tiles of kLanes rows, one row per lane: a vector of weights is multiplied by
// one broadcast activation, and no sum crosses lanes. Computes y[token * y_stride + row] for whole tiles of rows from
// row_begin on. Returns the first row not computed.
int64_t matmul_tiles(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride);

// Weights that are floats.
void matmul_floats(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                   int64_t y_stride);

// Splits n tokens into groups of kMost, then 4, 2 and 1. Calls body(integral_constant of the size, first token).
template <int kMost, class Body>
void for_columns(int n, const Body& body) {
    int c = 0;
    const auto groups = [&]<int C>(std::integral_constant<int, C> count) {
        if constexpr (C <= kMost) {
            for (; c + C <= n; c += C) {
                body(count, c);
            }
        }
    };
    groups(std::integral_constant<int, kMost>());
    groups(std::integral_constant<int, 4>());
    groups(std::integral_constant<int, 2>());
    groups(std::integral_constant<int, 1>());
}

}  // namespace lk::cpu::LK_SIMD
