// Sums over a row by a thread block, for norms.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/watch.h"
#include "base/finite.h"

namespace lk::cuda {

__device__ inline bool is_finite(float4 v) {
    return lk::is_finite(v.x) && lk::is_finite(v.y) && lk::is_finite(v.z) && lk::is_finite(v.w);
}

// The sum over a row is a sum of n_sums partial sums; partial sum s adds groups s, s + n_sums, ... of four elements.
// Only the row's length determines n_sums, so the order of adding does not depend on the number of threads.
constexpr int kMostSums = 1024;

inline int count_sums(int dim) {
    return std::min(kMostSums, (dim / 4 + 31) / 32 * 32);
}

// A thread's groups of a row. kSums: partial sums of a thread. The first kHeld groups of each are loaded at once and
// kept in registers.
template <int kSums, int kHeld>
class Row {
public:
    static constexpr int kThreads = kMostSums / kSums;

    __device__ Row(const float* x, int dim, int n_sums) : x_(x), dim_(dim), n_sums_(n_sums) {
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
#pragma unroll
            for (int k = 0; k < kHeld; ++k) {
                held_[s][k] = has(s, k) ? load(x, place(s, k)) : make_float4(0, 0, 0, 0);
            }
        }
    }

    // Calls f(s, i, x, y...) for each group: s is the thread's partial sum, x the elements i to i + 3 of this row, and
    // y the same of `others`, rows of the same length.
    template <class F, class... Others>
    __device__ void for_each(F&& f, const Others&... others) const {
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
#pragma unroll
            for (int k = 0; k < kHeld; ++k) {
                if (has(s, k)) {
                    f(s, place(s, k), held_[s][k], others.held_[s][k]...);
                }
            }
            for (int k = kHeld; has(s, k); ++k) {
                const int i = place(s, k);
                f(s, i, load(x_, i), load(others.x_, i)...);
            }
        }
    }

private:
    __device__ static float4 load(const float* x, int i) {
        return *reinterpret_cast<const float4*>(x + i);
    }
    __device__ int place(int s, int k) const {
        return (threadIdx.x + s * kThreads + k * n_sums_) * 4;
    }
    __device__ bool has(int s, int k) const {
        return threadIdx.x + s * kThreads < n_sums_ && place(s, k) < dim_;
    }

    float4 held_[kSums][kHeld];
    const float* x_;
    int dim_;
    int n_sums_;
};

// Sum of all partial sums, returned to every thread. scratch: 32 floats in shared memory.
template <int kSums>
__device__ float sum_of(const float (&partial)[kSums], int n_sums, float* scratch) {
    constexpr int kWarps = kMostSums / kSums / 32;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float sums[kSums];
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
        sums[s] = warp_sum(partial[s]);
    }
    __syncthreads();  // an earlier call may still read scratch
    if (lane == 0) {
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
            scratch[warp + s * kWarps] = sums[s];
        }
    }
    __syncthreads();
    return warp_sum(lane < n_sums / 32 ? scratch[lane] : 0.0f);
}

// Reports why the mean square of a row is not finite. Called by all threads of the block.
template <class Row>
__device__ void report_square(const Row& row, const RowsWatch& watch) {
    row.for_each([&](int, int, float4 v) {
        if (!is_finite(v)) {
            report(watch.broken, watch.x);
        }
    });
    __syncthreads();
    report(watch.broken, watch.made);  // inputs are finite; their squares overflow
}

// 1 / rms(x) of a row. Called by all threads of the block. scratch: 32 floats in shared memory.
template <int kSums, int kHeld>
__device__ float inverse_rms(const Row<kSums, kHeld>& row, float eps, int dim, int n_sums, float* scratch,
                             const RowsWatch& watch) {
    float sums[kSums] = {};
    row.for_each([&](int s, int, float4 v) { sums[s] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; });
    const float square = sum_of(sums, n_sums, scratch) / dim;
    if (!lk::is_finite(square)) {
        report_square(row, watch);
    }
    return rsqrtf(square + eps);
}

}  // namespace lk::cuda
