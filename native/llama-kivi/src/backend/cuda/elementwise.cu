// Operations that touch each activation once.
#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t n) {
    return static_cast<int>((n + kThreads - 1) / kThreads);
}

template <WeightType kType>
__global__ void embed_kernel(const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n_cols, float* out) {
    after_previous();
    const uint8_t* row = table + static_cast<size_t>(tokens[blockIdx.x]) * row_bytes;
    for (int i = threadIdx.x * 8; i < n_cols; i += blockDim.x * 8) {
        float x[8];
        decode8<kType>(row, i, x);
        for (int j = 0; j < 8; ++j) {
            out[static_cast<size_t>(blockIdx.x) * n_cols + i + j] = x[j];
        }
    }
}

// A row of a block of threads: the first elements stay in registers.
class Row {
public:
    static constexpr int kHeld = 2;

    __device__ Row(const float* x, int dim) : x_(x), dim_(dim) {
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            const int i = (threadIdx.x + k * blockDim.x) * 4;
            held_[k] = i < dim ? load(x, i) : make_float4(0, 0, 0, 0);
        }
    }

    __device__ static float4 load(const float* x, int i) { return *reinterpret_cast<const float4*>(x + i); }

    // f(i, elements i to i + 3) for every four of this thread's.
    template <class F>
    __device__ void for_each(F&& f) const {
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            const int i = (threadIdx.x + k * blockDim.x) * 4;
            if (i < dim_) {
                f(i, held_[k]);
            }
        }
        for (int i = (threadIdx.x + kHeld * blockDim.x) * 4; i < dim_; i += blockDim.x * 4) {
            f(i, load(x_, i));
        }
    }

private:
    float4 held_[kHeld];
    const float* x_;
    int dim_;
};

__global__ void __launch_bounds__(1024)
    rms_norm_kernel(const float* x, const float* weight, float eps, int dim, float* out) {
    __shared__ float scratch[32];
    after_previous();
    const Row row(x + static_cast<size_t>(blockIdx.x) * dim, dim);
    float* const y = out + static_cast<size_t>(blockIdx.x) * dim;
    float sum = 0;
    row.for_each([&](int, float4 v) { sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; });
    const float scale = rsqrtf(block_sum(sum, scratch) / dim + eps);
    row.for_each([&](int i, float4 v) {
        const float4 w = Row::load(weight, i);
        *reinterpret_cast<float4*>(y + i) =
            make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    });
}

__global__ void __launch_bounds__(1024)
    layer_norm_kernel(const float* x, const float* weight, const float* bias, float eps, int dim, float* out) {
    __shared__ float scratch[32];
    after_previous();
    const Row row(x + static_cast<size_t>(blockIdx.x) * dim, dim);
    float* const y = out + static_cast<size_t>(blockIdx.x) * dim;
    float sum = 0;
    row.for_each([&](int, float4 v) { sum += v.x + v.y + v.z + v.w; });
    const float mean = block_sum(sum, scratch) / dim;
    float square = 0;
    row.for_each([&](int, float4 v) {
        const float4 d = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
        square += d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
    });
    const float scale = rsqrtf(block_sum(square, scratch) / dim + eps);
    row.for_each([&](int i, float4 v) {
        const float4 w = Row::load(weight, i);
        const float4 b = Row::load(bias, i);
        *reinterpret_cast<float4*>(y + i) =
            make_float4((v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                        (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w);
    });
}

// Threads for a row: one for four elements, whole warps.
int norm_threads(int dim) {
    return std::min(1024, (dim / 4 + 31) / 32 * 32);
}

__global__ void swiglu_kernel(float* gate, const float* up, int64_t n) {
    after_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) {
        const float g = gate[i];
        gate[i] = g / (1.0f + expf(-g)) * up[i];
    }
}

__global__ void gelu_kernel(float* x, int64_t n) {
    after_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) {
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
    }
}

// n: a multiple of 8.
__global__ void to_half_kernel(const float* x, int64_t n, uint16_t* out) {
    after_previous();
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (i < n) {
        const float4 a = *reinterpret_cast<const float4*>(x + i);
        const float4 b = *reinterpret_cast<const float4*>(x + i + 4);
        __half2 pairs[4] = {__floats2half2_rn(a.x, a.y), __floats2half2_rn(a.z, a.w), __floats2half2_rn(b.x, b.y),
                            __floats2half2_rn(b.z, b.w)};
        *reinterpret_cast<uint4*>(out + i) = *reinterpret_cast<const uint4*>(pairs);
    }
}

}  // namespace

void embed(WeightType type, const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n, int n_cols, float* out,
           cudaStream_t stream) {
    dispatch(type, [&](auto t) {
        queue(embed_kernel<decltype(t)::value>, n, 128, 0, stream, table, row_bytes, tokens, n_cols, out);
    });
}

void rms_norm(const float* x, const float* weight, float eps, int n, int dim, float* out, cudaStream_t stream) {
    queue(rms_norm_kernel, n, norm_threads(dim), 0, stream, x, weight, eps, dim, out);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int n, int dim, float* out,
                cudaStream_t stream) {
    queue(layer_norm_kernel, n, norm_threads(dim), 0, stream, x, weight, bias, eps, dim, out);
}

void swiglu(float* gate, const float* up, int64_t n, cudaStream_t stream) {
    queue(swiglu_kernel, blocks_for(n), kThreads, 0, stream, gate, up, n);
}

void gelu(float* x, int64_t n, cudaStream_t stream) {
    queue(gelu_kernel, blocks_for(n), kThreads, 0, stream, x, n);
}

void to_half(const float* x, int64_t n, uint16_t* out, cudaStream_t stream) {
    queue(to_half_kernel, blocks_for(n / 8), kThreads, 0, stream, x, n, out);
}

}  // namespace lk::cuda
