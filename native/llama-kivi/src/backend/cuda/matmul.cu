// Products with weights: few columns read each weight once; many go through halves and the matrix units (cuda_backend.cpp).
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 4;

// A warp multiplies kRows rows of weights with kColumns columns.
template <WeightType kType, int kColumns, int kRows>
__global__ void __launch_bounds__(kWarps * 32)
    multiply_few_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const float* x, int n) {
    int which = 0;
    while (which + 1 < products.count && static_cast<int>(blockIdx.x) >= products.first_block[which + 1]) {
        ++which;
    }
    const uint8_t* const w = products.w[which];
    float* const y = products.y[which];
    const int n_rows = products.n_rows[which];
    const int first = ((blockIdx.x - products.first_block[which]) * kWarps + threadIdx.x / 32) * kRows;
    const int lane = threadIdx.x % 32;
    if (first >= n_rows) {
        return;
    }
    float sum[kRows][kColumns] = {};
#pragma unroll 2
    for (int i = lane * 8; i < n_cols; i += 256) {
        float a[kRows][8];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            decode8<kType>(w + static_cast<size_t>(min(first + r, n_rows - 1)) * row_bytes, i, a[r]);
        }
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            if (c < n) {
                const float4* p = reinterpret_cast<const float4*>(x + static_cast<size_t>(c) * n_cols + i);
                const float4 u = p[0];
                const float4 v = p[1];
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    sum[r][c] += a[r][0] * u.x + a[r][1] * u.y + a[r][2] * u.z + a[r][3] * u.w + a[r][4] * v.x +
                                 a[r][5] * v.y + a[r][6] * v.z + a[r][7] * v.w;
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            const float total = warp_sum(sum[r][c]);
            if (lane == 0 && c < n && first + r < n_rows) {
                y[static_cast<size_t>(c) * n_rows + first + r] = total;
            }
        }
    }
}

template <WeightType kType>
__global__ void dequantize_kernel(const uint8_t* w, int64_t n, uint16_t* out) {
    // Rows are whole blocks, so that the matrix is one row.
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (i >= n) {
        return;
    }
    // decode8 counts in int: from the super block on.
    constexpr int block = kType == WeightType::F32 || kType == WeightType::F16 || kType == WeightType::BF16 ? 8
                          : kType >= WeightType::Q2_K                                                        ? 256
                                                                                                             : 32;
    const size_t bytes = kType == WeightType::F32                                    ? 32
                         : kType == WeightType::F16 || kType == WeightType::BF16     ? 16
                         : kType == WeightType::Q4_0                                 ? sizeof(BlockQ4_0)
                         : kType == WeightType::Q4_1                                 ? sizeof(BlockQ4_1)
                         : kType == WeightType::Q5_0                                 ? sizeof(BlockQ5_0)
                         : kType == WeightType::Q5_1                                 ? sizeof(BlockQ5_1)
                         : kType == WeightType::Q8_0                                 ? sizeof(BlockQ8_0)
                         : kType == WeightType::Q2_K                                 ? sizeof(BlockQ2_K)
                         : kType == WeightType::Q3_K                                 ? sizeof(BlockQ3_K)
                         : kType == WeightType::Q4_K                                 ? sizeof(BlockQ4_K)
                         : kType == WeightType::Q5_K                                 ? sizeof(BlockQ5_K)
                                                                                     : sizeof(BlockQ6_K);
    float x[8];
    decode8<kType>(w + static_cast<size_t>(i / block) * bytes, static_cast<int>(i % block), x);
    __half2 pairs[4];
    for (int j = 0; j < 4; ++j) {
        pairs[j] = __floats2half2_rn(x[2 * j], x[2 * j + 1]);
    }
    *reinterpret_cast<uint4*>(out + i) = *reinterpret_cast<const uint4*>(pairs);
}

template <WeightType kType, int kColumns>
void launch(FewProducts products, size_t row_bytes, int n_cols, const float* x, int n, cudaStream_t stream) {
    constexpr int rows = 2;
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + kWarps * rows - 1) / (kWarps * rows);
    }
    multiply_few_kernel<kType, kColumns, rows>
        <<<n_blocks, kWarps * 32, 0, stream>>>(products, row_bytes, n_cols, x, n);
}

}  // namespace

void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x, int n,
                  cudaStream_t stream) {
    dispatch(type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if (n == 1) {
            launch<kType, 1>(products, row_bytes, n_cols, x, n, stream);
        } else if (n <= 4) {
            launch<kType, 4>(products, row_bytes, n_cols, x, n, stream);
        } else {
            launch<kType, 8>(products, row_bytes, n_cols, x, n, stream);
        }
    });
}

void dequantize(WeightType type, const uint8_t* w, int64_t n, uint16_t* out, cudaStream_t stream) {
    dispatch(type, [&](auto t) {
        constexpr int threads = 256;
        const int n_blocks = static_cast<int>((n / 8 + threads - 1) / threads);
        dequantize_kernel<decltype(t)::value><<<n_blocks, threads, 0, stream>>>(w, n, out);
    });
}

}  // namespace lk::cuda
