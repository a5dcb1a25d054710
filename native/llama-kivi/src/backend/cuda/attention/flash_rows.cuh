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

// Rows as wgmma reads them (device/wgmma.cuh): panels of 64 channels, kRows rows each. Loaded by a warpgroup, threads
// [128 w, 128 w + 128) of the block.
template <int kRows>
struct SwizzledRows {
    uint16_t* first;  // at a multiple of 1,024 bytes

    static constexpr int kPanel = kRows * 64;  // halves

    __device__ uint16_t* at(int row, int c) const {
        return first + c / 64 * kPanel + row * 64 + (c / 8 ^ row) % 8 * 8 + c % 8;
    }
    static __device__ int thread() { return static_cast<int>(threadIdx.x % 128); }
    static __device__ int threads() { return 128; }
};

}  // namespace

}  // namespace lk::cuda
