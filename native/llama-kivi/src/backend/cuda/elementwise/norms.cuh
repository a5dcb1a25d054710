// Norms of rows. One thread block per row.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/elementwise/row_targets.cuh"
#include "backend/rows.h"
#include "base/finite.h"

namespace lk::cuda {

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

// Norms let the next kernel start, which may be a matmul that prefetches weights. Weights are constant, so norms load
// them before the preceding kernel ends. A block of 1,024 threads has at most 32 registers per thread, so that it
// starts beside a block of a GEMV.
template <int kSums, int kHeld, class To>
__global__ void __launch_bounds__(kMostSums / kSums, kSums == 1 ? 2 : 1)
    rms_norm_kernel(const float* x, const float* weight, float eps, int dim, int n_sums, const To to,
                    const RowsWatch watch) {
    __shared__ float scratch[32];
    start_next();
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * dim;
    const Row<kSums, kHeld> weights(weight, dim, n_sums);
    wait_for_previous();
    const Row<kSums, kHeld> row(x + begin, dim, n_sums);
    const float scale = inverse_rms(row, eps, dim, n_sums, scratch, watch);
    bool fits = true;
    row.for_each(
        [&](int, int i, float4 v, float4 w) {
            v = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
            fits = fits && To::fits(v);
            to(begin + i, v);
        },
        weights);
    if (!fits) {
        report(watch.broken, watch.made);
    }
}

template <int kSums, int kHeld, class To>
__global__ void __launch_bounds__(kMostSums / kSums)
    layer_norm_kernel(const float* x, const float* weight, const float* bias, float eps, int dim, int n_sums,
                      const To to, const RowsWatch watch) {
    __shared__ float scratch[32];
    start_next();
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * dim;
    const Row<kSums, kHeld> weights(weight, dim, n_sums);
    const Row<kSums, kHeld> biases(bias, dim, n_sums);
    wait_for_previous();
    const Row<kSums, kHeld> row(x + begin, dim, n_sums);
    float sums[kSums] = {};
    row.for_each([&](int s, int, float4 v) { sums[s] += v.x + v.y + v.z + v.w; });
    const float mean = sum_of(sums, n_sums, scratch) / dim;
    float squares[kSums] = {};
    row.for_each([&](int s, int, float4 v) {
        const float4 d = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
        squares[s] += d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
    });
    const float mean_square = sum_of(squares, n_sums, scratch) / dim;
    if (!lk::is_finite(mean_square)) {
        report_square(row, watch);
    }
    const float scale = rsqrtf(mean_square + eps);
    bool fits = true;
    row.for_each(
        [&](int, int i, float4 v, float4 w, float4 b) {
            v = make_float4((v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                            (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w);
            fits = fits && To::fits(v);
            to(begin + i, v);
        },
        weights, biases);
    if (!fits) {
        report(watch.broken, watch.made);
    }
}

template <int kSums, int kHeld, class To>
void queue_norm(const Rows& r, int n, int dim, const To& to, const RowsWatch& watch, Stream& stream) {
    const int n_sums = count_sums(dim);
    const int n_threads = std::min(kMostSums / kSums, n_sums);
    if (r.form == Rows::Form::rms_norm) {
        queue(rms_norm_kernel<kSums, kHeld, To>, n, n_threads, 0, stream, r.x, r.weight, r.eps, dim, n_sums, to, watch);
    } else {
        queue(layer_norm_kernel<kSums, kHeld, To>, n, n_threads, 0, stream, r.x, r.weight, r.bias, r.eps, dim, n_sums,
              to, watch);
    }
}

// Queues rms_norm or layer_norm of n rows. Few rows are bound by latency and take a thread per partial sum; many rows
// are bound by bandwidth and take small blocks, of which a multiprocessor runs several at different stages.
template <class To>
void norm_rows(const Rows& r, int n, int dim, const To& to, const RowsWatch& watch, Stream& stream) {
    constexpr int kFewRows = 128;
    if (n <= kFewRows) {
        queue_norm<1, 2>(r, n, dim, to, watch, stream);
    } else if (dim <= 4 * kMostSums) {
        queue_norm<4, 1>(r, n, dim, to, watch, stream);
    } else {
        queue_norm<4, 2>(r, n, dim, to, watch, stream);
    }
}

}  // namespace lk::cuda
