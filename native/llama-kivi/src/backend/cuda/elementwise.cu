// Operations that touch each activation once.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t n) {
    return static_cast<int>((n + kThreads - 1) / kThreads);
}

template <WeightType kType>
__global__ void embed_kernel(const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n_cols, float* out) {
    const uint8_t* row = table + static_cast<size_t>(tokens[blockIdx.x]) * row_bytes;
    for (int i = threadIdx.x * 8; i < n_cols; i += blockDim.x * 8) {
        float x[8];
        decode8<kType>(row, i, x);
        for (int j = 0; j < 8; ++j) {
            out[static_cast<size_t>(blockIdx.x) * n_cols + i + j] = x[j];
        }
    }
}

__global__ void rms_norm_kernel(const float* x, const float* weight, float eps, int dim, float* out) {
    __shared__ float scratch[32];
    x += static_cast<size_t>(blockIdx.x) * dim;
    out += static_cast<size_t>(blockIdx.x) * dim;
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        sum += x[i] * x[i];
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / dim + eps);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        out[i] = x[i] * scale * weight[i];
    }
}

__global__ void layer_norm_kernel(const float* x, const float* weight, const float* bias, float eps, int dim,
                                  float* out) {
    __shared__ float scratch[32];
    x += static_cast<size_t>(blockIdx.x) * dim;
    out += static_cast<size_t>(blockIdx.x) * dim;
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        sum += x[i];
    }
    const float mean = block_sum(sum, scratch) / dim;
    float square = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        square += (x[i] - mean) * (x[i] - mean);
    }
    const float scale = rsqrtf(block_sum(square, scratch) / dim + eps);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    }
}

__global__ void swiglu_kernel(float* gate, const float* up, int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) {
        const float g = gate[i];
        gate[i] = g / (1.0f + expf(-g)) * up[i];
    }
}

__global__ void gelu_kernel(float* x, int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) {
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
    }
}

// n: a multiple of 8.
__global__ void to_half_kernel(const float* x, int64_t n, uint16_t* out) {
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
        embed_kernel<decltype(t)::value><<<n, 128, 0, stream>>>(table, row_bytes, tokens, n_cols, out);
    });
}

void rms_norm(const float* x, const float* weight, float eps, int n, int dim, float* out, cudaStream_t stream) {
    rms_norm_kernel<<<n, 512, 0, stream>>>(x, weight, eps, dim, out);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int n, int dim, float* out,
                cudaStream_t stream) {
    layer_norm_kernel<<<n, 512, 0, stream>>>(x, weight, bias, eps, dim, out);
}

void swiglu(float* gate, const float* up, int64_t n, cudaStream_t stream) {
    swiglu_kernel<<<blocks_for(n), kThreads, 0, stream>>>(gate, up, n);
}

void gelu(float* x, int64_t n, cudaStream_t stream) {
    gelu_kernel<<<blocks_for(n), kThreads, 0, stream>>>(x, n);
}

void to_half(const float* x, int64_t n, uint16_t* out, cudaStream_t stream) {
    to_half_kernel<<<blocks_for(n / 8), kThreads, 0, stream>>>(x, n, out);
}

}  // namespace lk::cuda
