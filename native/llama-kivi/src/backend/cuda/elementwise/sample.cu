// Samples tokens from logits, as backend/sampling.cpp does. One thread block per row.
#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/elementwise/elementwise.h"
#include "base/finite.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 256;

using Sum = unsigned long long;

__device__ Sum weight_of(float difference) {
    return static_cast<Sum>(expf(difference) * 4294967296.0f);
}

// Maps a float to an unsigned key of the same order, and back.
__device__ unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ float float_of(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

struct Shared {
    Sum bins[kBins];
    Sum sums[kThreads];
    float tops[kThreads / 32];
    int places[kThreads / 32];
    unsigned prefix;
    Sum rest;
    int chosen;
};

// Sum over the thread block, returned to every thread.
__device__ Sum total_of(Sum mine, Shared& s) {
    __syncthreads();
    s.sums[threadIdx.x] = mine;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.x) < half) {
            s.sums[threadIdx.x] += s.sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    const Sum total = s.sums[0];
    __syncthreads();
    return total;
}

// Radix select: the largest key for which the weights of all keys >= it sum to at least `target`. One byte per pass,
// highest byte first.
template <class Weight>
__device__ unsigned select_key(const float* logits, int n, Sum target, Shared& s, Weight weight) {
    if (threadIdx.x == 0) {
        s.prefix = 0;
        s.rest = target;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int i = threadIdx.x; i < kBins; i += kThreads) {
            s.bins[i] = 0;
        }
        __syncthreads();
        const unsigned prefix = s.prefix;
        for (int i = threadIdx.x; i < n; i += kThreads) {
            const unsigned key = key_of(logits[i]);
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) {
                const Sum w = weight(logits[i]);
                if (w > 0) {
                    atomicAdd(&s.bins[key >> shift & (kBins - 1)], w);
                }
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = kBins - 1;
            while (bin > 0 && s.bins[bin] < s.rest) {
                s.rest -= s.bins[bin--];
            }
            s.prefix |= static_cast<unsigned>(bin) << shift;
        }
    }
    __syncthreads();
    const unsigned key = s.prefix;
    __syncthreads();
    return key;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(const float* all, int n, const lk_sampling sampling,
                                                          const double* draws, int32_t* tokens, const Watch watch) {
    __shared__ Shared s;
    after_previous();
    const float* const logits = all + static_cast<size_t>(blockIdx.x) * n;
    // Argmax; ties go to the lowest token.
    float top = -INFINITY;
    int place = 0;
    bool finite = true;
    for (int i = threadIdx.x; i < n; i += kThreads) {
        finite = finite && is_finite(logits[i]);
        if (logits[i] > top) {
            top = logits[i];
            place = i;
        }
    }
    if (!finite) {
        report(watch.broken, watch.place);
    }
    for (int round = 0; round < 2; ++round) {
        for (int offset = 16; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(kAllLanes, top, offset);
            const int there = __shfl_xor_sync(kAllLanes, place, offset);
            if (other > top || (other == top && there < place)) {
                top = other;
                place = there;
            }
        }
        if (round == 0) {
            if (threadIdx.x % 32 == 0) {
                s.tops[threadIdx.x / 32] = top;
                s.places[threadIdx.x / 32] = place;
            }
            __syncthreads();
            top = s.tops[threadIdx.x % 32];
            place = s.places[threadIdx.x % 32];
        }
    }
    if (sampling.temperature == 0) {
        if (threadIdx.x == 0) {
            tokens[blockIdx.x] = place;
        }
        return;
    }

    float least = -INFINITY;  // smallest logit to keep
    if (sampling.top_k > 0 && sampling.top_k < static_cast<unsigned>(n)) {
        least = float_of(select_key(logits, n, sampling.top_k, s, [](float) { return Sum{1}; }));
    }
    if (sampling.top_p < 1) {
        const auto weight = [&](float x) { return x >= least ? weight_of(x - top) : Sum{0}; };
        Sum mine = 0;
        for (int i = threadIdx.x; i < n; i += kThreads) {
            mine += weight(logits[i]);
        }
        const Sum wanted =
            static_cast<Sum>(static_cast<double>(sampling.top_p) * static_cast<double>(total_of(mine, s)));
        const float border = float_of(select_key(logits, n, wanted, s, weight));
        least = fmaxf(least, border);
    }
    if (sampling.min_p > 0) {
        least = fmaxf(least, top + logf(sampling.min_p));
    }

    // Each thread has consecutive tokens, so that sums follow token order.
    const int each = (n + kThreads - 1) / kThreads;
    const int begin = min(n, static_cast<int>(threadIdx.x) * each);
    const int end = min(n, begin + each);
    const auto weight = [&](int i) {
        return logits[i] >= least ? weight_of((logits[i] - top) / sampling.temperature) : Sum{0};
    };
    Sum mine = 0;
    for (int i = begin; i < end; ++i) {
        mine += weight(i);
    }
    const Sum total = total_of(mine, s);
    const Sum target = static_cast<Sum>(draws[blockIdx.x] * static_cast<double>(total));
    s.sums[threadIdx.x] = mine;
    if (threadIdx.x == 0) {
        s.chosen = place;
    }
    __syncthreads();
    // Inclusive prefix sum over the threads.
    for (int step = 1; step < kThreads; step *= 2) {
        const Sum before = static_cast<int>(threadIdx.x) >= step ? s.sums[threadIdx.x - step] : 0;
        __syncthreads();
        s.sums[threadIdx.x] += before;
        __syncthreads();
    }
    Sum sum = s.sums[threadIdx.x] - mine;
    if (sum <= target && target < sum + mine) {
        for (int i = begin; i < end; ++i) {
            sum += weight(i);
            if (sum > target) {
                s.chosen = i;
                break;
            }
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        tokens[blockIdx.x] = s.chosen;
    }
}

}  // namespace

void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws, int32_t* tokens,
            const Watch& watch, cudaStream_t stream) {
    queue(sample_kernel, n, kThreads, 0, stream, logits, n_vocab, sampling, draws, tokens, watch);
}

}  // namespace lk::cuda
