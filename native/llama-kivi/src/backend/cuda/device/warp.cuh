// Reductions over warps and thread blocks.
#pragma once

#include <cuda_runtime.h>

namespace lk::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline double warp_sum(double x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline int warp_sum(int x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
}

// Sum over a block of up to 1024 threads, returned to every thread. scratch: 32 floats in shared memory.
__device__ inline float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    __syncthreads();  // an earlier call may still read scratch
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    const int n_warps = (blockDim.x + 31) / 32;
    return warp_sum(threadIdx.x % 32 < n_warps ? scratch[threadIdx.x % 32] : 0.0f);
}

}  // namespace lk::cuda
