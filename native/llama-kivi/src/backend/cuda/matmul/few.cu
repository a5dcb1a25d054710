// GEMMs of float weights with few tokens, bound by reading the weights: 2 to 8 tokens, or 2 to 32 for F32 and BF16
// weights. F16 weights where wgmma runs: few_wgmma.cu. More tokens: conversion to halves and cuBLAS (matmul_queue.cpp).
#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kTileRows = 16;

// A thread block multiplies 16 rows of weights by 8 kTiles tokens; its warps split the row length. Of each 32 elements,
// a lane has 8 of rows g and g + 8 (g = lane / 4). The order in which tensor cores sum them does not matter, because
// weights and tokens have the same order.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(kWarps * 32)
    multiply_few_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x,
                        int n) {
    __shared__ float sums[kWarps][8 * kTiles][kTileRows + 1];
    const int which = product_of(products, blockIdx.x);
    float* const y = products.y[which];
    const int n_rows = products.n_rows[which];
    const int first = (blockIdx.x - products.first_block[which]) * kTileRows;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const uint8_t* const row0 = products.w[which] + static_cast<size_t>(min(first + g, n_rows - 1)) * row_bytes;
    const uint8_t* const row1 = products.w[which] + static_cast<size_t>(min(first + 8 + g, n_rows - 1)) * row_bytes;
    after_previous();
    float acc[kTiles][4] = {};
    const int n_steps = (n_cols + 31) / 32;
#pragma unroll(kTiles <= 2 ? 4 : 2)
    for (int step = warp; step < n_steps; step += kWarps) {
        const int i = step * 32 + 8 * j;
        const bool there = i < n_cols;
        const uint4 none = make_uint4(0, 0, 0, 0);
        const uint4 a = there ? decode8_halves<kType>(row0, i) : none;
        const uint4 b = there ? decode8_halves<kType>(row1, i) : none;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            const int column = 8 * t + g;
            uint4 c = none;
            if (there && column < n) {
                c = *reinterpret_cast<const uint4*>(x + static_cast<size_t>(column) * n_cols + i);
            }
            multiply(acc[t], a.x, b.x, a.y, b.y, c.x, c.y);
            multiply(acc[t], a.z, b.z, a.w, b.w, c.z, c.w);
        }
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            sums[warp][8 * t + 2 * j + k % 2][g + k / 2 * 8] = acc[t][k];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * kTileRows; i += kWarps * 32) {
        const int column = i / kTileRows;
        const int row = i % kTileRows;
        float total = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            total += sums[w][column][row];
        }
        if (first + row < n_rows) {
            float& out = y[static_cast<size_t>(column) * n_rows + first + row];
            out = products.add[which] ? out + total : total;
        }
    }
}

template <WeightType kType>
__global__ void dequantize_kernel(const uint8_t* w, int64_t n, uint16_t* out) {
    after_previous();
    // Rows are whole blocks, so the matrix can be treated as one row.
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (i >= n) {
        return;
    }
    // decode8 takes an int index, so count from the block.
    constexpr int elements = is_float(kType) ? 8 : block_elements(kType);
    constexpr size_t bytes = elements / block_elements(kType) * block_bytes(kType);
    *reinterpret_cast<uint4*>(out + i) =
        decode8_halves<kType>(w + static_cast<size_t>(i / elements) * bytes, static_cast<int>(i % elements));
}

}  // namespace

void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                  Stream& stream) {
    const int n_blocks = count_blocks(products, kTileRows);
    dispatch("matmul with few tokens", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        const auto call = [&](auto kernel) {
            queue(kernel, n_blocks, kWarps * 32, 0, stream, products, row_bytes, n_cols, x, n);
        };
        if constexpr (few_columns(kType) > 8) {
            call(n <= 8    ? multiply_few_kernel<kType, 1>
                 : n <= 16 ? multiply_few_kernel<kType, 2>
                           : multiply_few_kernel<kType, 4>);
        } else if constexpr (few_columns(kType) > 1) {
            call(multiply_few_kernel<kType, 1>);
        } else {
            fail_weights("matmul with few tokens", type);
        }
    });
}

void dequantize(WeightType type, const uint8_t* w, int64_t n, uint16_t* out, Stream& stream) {
    dispatch("dequantize", type, [&](auto t) {
        constexpr int threads = 256;
        const int n_blocks = static_cast<int>((n / 8 + threads - 1) / threads);
        queue(dequantize_kernel<decltype(t)::value>, n_blocks, threads, 0, stream, w, n, out);
    });
}

}  // namespace lk::cuda
