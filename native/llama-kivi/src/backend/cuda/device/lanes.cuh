// The threads of a block and the lanes of a warp as the functions of value_tile.h and key_tile.h take them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend/cuda/device/warp.cuh"

namespace lk::cuda {

struct Lanes {
    __device__ int thread() const { return static_cast<int>(threadIdx.x); }
    __device__ int threads() const { return static_cast<int>(blockDim.x); }
    __device__ int lane() const { return static_cast<int>(threadIdx.x % 32); }
    __device__ uint32_t exchange(uint32_t x, int mask) const { return __shfl_xor_sync(kAllLanes, x, mask); }
    __device__ float exchange(float x, int mask) const { return __shfl_xor_sync(kAllLanes, x, mask); }
    __device__ double exchange(double x, int mask) const { return __shfl_xor_sync(kAllLanes, x, mask); }
    __device__ uint32_t vote(bool x) const { return __ballot_sync(kAllLanes, x); }
    __device__ uint32_t sum(uint32_t x) const { return __reduce_add_sync(kAllLanes, x); }
    __device__ uint32_t largest(uint32_t x) const { return __reduce_max_sync(kAllLanes, x); }
    __device__ void sync_warp() const { __syncwarp(); }
    __device__ void sync_block() const { __syncthreads(); }
};

}  // namespace lk::cuda
