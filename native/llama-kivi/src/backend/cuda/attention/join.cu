// Merges the partial attention results of splits.
#include <cmath>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"

namespace lk::cuda {

namespace {

// Sum i adds splits i, i + kSums and so on, of both kernels; then the sums are added in order. A split without tokens
// adds exact zeros. So the order of a row's sum depends neither on the launch nor on the other segments.
constexpr int kSums = 16;

// Splits in the order in which they are added: those of the page kernel, padded to a multiple of kSums, then the
// others.
struct SplitOrder {
    int n_page_splits;
    int padded;
    int end;

    __host__ __device__ explicit SplitOrder(const AttentionWork& a)
        : n_page_splits(a.n_page_splits),
          padded((a.n_page_splits + kSums - 1) / kSums * kSums),
          end(padded + a.n_splits) {}
    // The split at `i`; negative if there is none.
    __device__ int split(int i) const {
        return i < n_page_splits ? i : i < padded || i >= end ? -1 : i - padded + n_page_splits;
    }
};

// One thread block per row and query head of a segment. kPairs: pairs of channels per lane.
template <int kWarps, int kPairs>
__global__ void __launch_bounds__(kWarps * 32) join_kernel(const AttentionWork a) {
    after_previous();
    constexpr int kOwn = kSums / kWarps;           // sums of a warp
    constexpr int kTogether = kPairs > 2 ? 4 : 8;  // splits whose loads are in flight together
    static_assert(kSums % kWarps == 0 && kTogether % kOwn == 0);
    extern __shared__ __align__(16) float sums[];  // [kSums, D + 2]: values, then the sum of probabilities
    const SegmentWork& seg = a.segments[blockIdx.y];
    const int i = blockIdx.x / a.n_head;
    if (i >= seg.n_rows) {
        return;
    }
    const int d = a.head_size;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const size_t row = static_cast<size_t>(seg.row + i) * a.n_head + blockIdx.x % a.n_head;
    const size_t stride = static_cast<size_t>(a.n_rows) * a.n_head * (d + 2);  // of splits
    const float* const parts = a.partial + row * (d + 2);
    const SplitOrder order(a);

    float2 head[kTogether];  // maximum and sum of a split
    float2 values[kTogether][kPairs];
    const auto load = [&](int first) {
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
            const int split = order.split(first + kWarps * n);
            head[n] = make_float2(-INFINITY, 0);
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
                values[n][p] = make_float2(0, 0);
            }
            if (split < 0) {
                continue;
            }
            const float2* const part = reinterpret_cast<const float2*>(parts + split * stride);
            head[n] = part[0];
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
                if (64 * p + 2 * lane < d) {
                    values[n][p] = part[1 + 32 * p + lane];
                }
            }
        }
    };
    load(warp);
    float largest = -INFINITY;
    for (int s = lane; s < a.n_page_splits + a.n_splits; s += 32) {
        largest = fmaxf(largest, parts[s * stride]);
    }
    largest = warp_max(largest);

    float mass[kOwn] = {};
    float2 x[kOwn][kPairs] = {};
    for (int first = warp; first < order.end; first += kWarps * kTogether) {
        if (first != warp) {
            load(first);
        }
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
            const float weight = head[n].x == -INFINITY ? 0.0f : __expf(head[n].x - largest);
            mass[n % kOwn] += weight * head[n].y;
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
                x[n % kOwn][p].x += weight * values[n][p].x;
                x[n % kOwn][p].y += weight * values[n][p].y;
            }
        }
    }
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
        float* const to = sums + (warp + kWarps * n) * (d + 2);
#pragma unroll
        for (int p = 0; p < kPairs; ++p) {
            if (64 * p + 2 * lane < d) {
                reinterpret_cast<float2*>(to)[32 * p + lane] = x[n][p];
            }
        }
        if (lane == 0) {
            to[d] = mass[n];
        }
    }
    __syncthreads();
    const int n_sums = min(kSums, max(a.n_page_splits, a.n_splits));  // the others are zero
    for (int c = threadIdx.x; c < d; c += kWarps * 32) {
        float total = 0;
        float value = 0;
        for (int s = 0; s < n_sums; ++s) {
            total += sums[s * (d + 2) + d];
            value += sums[s * (d + 2) + c];
        }
        a.out[row * d + c] = value / total;
    }
}

template <int kWarps>
void join(const AttentionWork& a, Stream& stream) {
    const auto kernel = a.head_size <= 64    ? join_kernel<kWarps, 1>
                        : a.head_size <= 128 ? join_kernel<kWarps, 2>
                                             : join_kernel<kWarps, 4>;
    queue(kernel, dim3(a.max_rows * a.n_head, a.n_segments), kWarps * 32, kSums * (a.head_size + 2) * sizeof(float),
          stream, a);
}

}  // namespace

void attention_join(const AttentionWork& a, Stream& stream) {
    // Up to 2 kSums splits are loaded at once by four warps; more warps would have none. A batch-invariant pass has one
    // instance for all, because compilers may round the same formula differently in another.
    if (!a.fixed_splits && a.n_page_splits <= kSums && a.n_splits <= kSums) {
        join<4>(a, stream);
    } else {
        join<kSums>(a, stream);
    }
}

}  // namespace lk::cuda
