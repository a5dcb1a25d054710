// Flash attention: rows of halves in shared memory, and the threads that load them together.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

// Rows kStride halves apart, loaded by all threads of the block.
template <int kStride>
struct StridedRows {
    uint16_t* first;

    __device__ uint16_t* at(int row, int c) const { return first + row * kStride + c; }
    static __device__ int thread() { return static_cast<int>(threadIdx.x); }
    static __device__ int threads() { return static_cast<int>(blockDim.x); }
};

}  // namespace

}  // namespace lk::cuda
