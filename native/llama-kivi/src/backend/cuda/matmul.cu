// Products with weights: up to 32 columns read each weight once; more go through halves and cuBLAS (cuda_backend.cpp).
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kTileRows = 16;

// Bytes of 0..255, less what they are too high, times a scale, as eight halves.
__device__ uint4 scaled(unsigned low, unsigned high, float less, __half2 scale) {
    const __half2 all_less = __float2half2_rn(-1024.0f - less);
    const auto pair = [&](unsigned codes, unsigned select) {
        return bits(__hmul2(__hadd2(halves(__byte_perm(codes, 0x64646464u, select)), all_less), scale));
    };
    return make_uint4(pair(low, 0x4140), pair(low, 0x4342), pair(high, 0x4140), pair(high, 0x4342));
}

// Elements [i, i + 8) of a row of weights as halves.
template <WeightType kType>
__device__ uint4 decode8_halves(const uint8_t* row, int i) {
    if constexpr (kType == WeightType::F16) {
        return *(reinterpret_cast<const uint4*>(row) + i / 8);
    } else if constexpr (kType == WeightType::Q8_0) {
        const uint8_t* const b = row + static_cast<size_t>(i / 32) * sizeof(BlockQ8_0);
        const __half2 scale = __half2half2(__ushort_as_half(load_u16(b)));
        return scaled(load_u32(b + 2 + i % 32) ^ 0x80808080u, load_u32(b + 6 + i % 32) ^ 0x80808080u, 128, scale);
    } else if constexpr (kType == WeightType::Q4_0) {
        const uint8_t* const b = row + static_cast<size_t>(i / 32) * sizeof(BlockQ4_0);
        const __half2 scale = __half2half2(__ushort_as_half(load_u16(b)));
        const int shift = i % 32 / 16 * 4;
        const uint8_t* const codes = b + 2 + i % 16;
        return scaled(load_u32(codes) >> shift & 0x0f0f0f0fu, load_u32(codes + 4) >> shift & 0x0f0f0f0fu, 8, scale);
    } else {
        float x[8];
        decode8<kType>(row, i, x);
        return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]),
                          pack(x[4], x[5]), pack(x[6], x[7]));
    }
}

constexpr int kVectorWarps = 4;
constexpr int kVectorRows = 2;

// Which product a block is of, and its place there.
__device__ int product_of(const FewProducts& products) {
    int which = 0;
    while (which + 1 < products.count && static_cast<int>(blockIdx.x) >= products.first_block[which + 1]) {
        ++which;
    }
    return which;
}

// One column: a warp multiplies two rows of weights, 256 elements at a time.
template <WeightType kType>
__global__ void __launch_bounds__(kVectorWarps * 32)
    multiply_vector_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const float* x) {
    const int which = product_of(products);
    const int n_rows = products.n_rows[which];
    const int first = ((blockIdx.x - products.first_block[which]) * kVectorWarps + threadIdx.x / 32) * kVectorRows;
    const int lane = threadIdx.x % 32;
    if (first >= n_rows) {
        return;
    }
    float sum[kVectorRows] = {};
#pragma unroll 2
    for (int i = lane * 8; i < n_cols; i += 256) {
        float a[kVectorRows][8];
#pragma unroll
        for (int r = 0; r < kVectorRows; ++r) {
            decode8<kType>(products.w[which] + static_cast<size_t>(min(first + r, n_rows - 1)) * row_bytes, i, a[r]);
        }
        const float4 u = *reinterpret_cast<const float4*>(x + i);
        const float4 v = *reinterpret_cast<const float4*>(x + i + 4);
#pragma unroll
        for (int r = 0; r < kVectorRows; ++r) {
            sum[r] += a[r][0] * u.x + a[r][1] * u.y + a[r][2] * u.z + a[r][3] * u.w + a[r][4] * v.x + a[r][5] * v.y +
                      a[r][6] * v.z + a[r][7] * v.w;
        }
    }
#pragma unroll
    for (int r = 0; r < kVectorRows; ++r) {
        const float total = warp_sum(sum[r]);
        if (lane == 0 && first + r < n_rows) {
            products.y[which][first + r] = total;
        }
    }
}

// A block multiplies 16 rows of weights with 8 kTiles columns; its warps share the rows' length, a lane 8 elements of 32 of
// rows g and g + 8 (g = lane / 4), in whatever order the matrix units take them: that of the columns is the same.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(kWarps * 32)
    multiply_few_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x,
                        int n) {
    __shared__ float sums[kWarps][8 * kTiles][kTileRows + 1];
    const int which = product_of(products);
    float* const y = products.y[which];
    const int n_rows = products.n_rows[which];
    const int first = (blockIdx.x - products.first_block[which]) * kTileRows;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const uint8_t* const row0 = products.w[which] + static_cast<size_t>(min(first + g, n_rows - 1)) * row_bytes;
    const uint8_t* const row1 = products.w[which] + static_cast<size_t>(min(first + 8 + g, n_rows - 1)) * row_bytes;
    const int n_chunks = (n_cols + 31) / 32;
    // Blocks of quantized weights are no multiple of a sector: neighbours stay in one warp.
    constexpr bool kTurns = kType == WeightType::F16 || kType == WeightType::BF16 || kType == WeightType::F32;
    const int per_warp = (n_chunks + kWarps - 1) / kWarps;
    const int begin = kTurns ? warp : warp * per_warp;
    const int end = kTurns ? n_chunks : min(n_chunks, begin + per_warp);
    float acc[kTiles][4] = {};
#pragma unroll(kTiles <= 2 ? 4 : 2)
    for (int chunk = begin; chunk < end; chunk += kTurns ? kWarps : 1) {
        const int i = chunk * 32 + 8 * j;
        if (n_cols % 32 != 0 && __any_sync(kAllLanes, i >= n_cols)) {
            // The end of a row that is no multiple of 32.
            const bool there = i < n_cols;
            const uint4 none = make_uint4(0, 0, 0, 0);
            const uint4 a = there ? decode8_halves<kType>(row0, i) : none;
            const uint4 b = there ? decode8_halves<kType>(row1, i) : none;
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                const int column = 8 * t + g;
                const uint4 c = there && column < n
                                    ? *reinterpret_cast<const uint4*>(x + static_cast<size_t>(column) * n_cols + i)
                                    : none;
                multiply(acc[t], a.x, b.x, a.y, b.y, c.x, c.y);
                multiply(acc[t], a.z, b.z, a.w, b.w, c.z, c.w);
            }
            continue;
        }
        const uint4 a = decode8_halves<kType>(row0, i);
        const uint4 b = decode8_halves<kType>(row1, i);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            const int column = 8 * t + g;
            uint4 c = make_uint4(0, 0, 0, 0);
            if (column < n) {
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
            y[static_cast<size_t>(column) * n_rows + first + row] = total;
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

// Gives every product its blocks of rows_each rows; returns how many there are.
int count_blocks(FewProducts& products, int rows_each) {
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + rows_each - 1) / rows_each;
    }
    return n_blocks;
}

}  // namespace

void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     cudaStream_t stream) {
    const int n_blocks = count_blocks(products, kVectorWarps * kVectorRows);
    dispatch(type, [&](auto t) {
        multiply_vector_kernel<decltype(t)::value>
            <<<n_blocks, kVectorWarps * 32, 0, stream>>>(products, row_bytes, n_cols, x);
    });
}

void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                  cudaStream_t stream) {
    const int n_blocks = count_blocks(products, kTileRows);
    dispatch(type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        const auto kernel = n <= 8    ? multiply_few_kernel<kType, 1>
                            : n <= 16 ? multiply_few_kernel<kType, 2>
                                      : multiply_few_kernel<kType, 4>;
        kernel<<<n_blocks, kWarps * 32, 0, stream>>>(products, row_bytes, n_cols, x, n);
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
