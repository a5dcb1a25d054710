// Norms of rows. One thread block per row.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/row_sums.cuh"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/elementwise/row_targets.cuh"
#include "backend/rows.h"
#include "base/finite.h"

namespace lk::cuda {

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
