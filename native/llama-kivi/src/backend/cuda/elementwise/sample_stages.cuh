// Selection among the logits of a row by one thread block: sums, the greatest logits by weight or number, compaction.
// Weights are integers, so that sums do not depend on their order.
#pragma once

#include <climits>
#include <cstdint>

namespace lk::cuda {

namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 256;
constexpr int kMaxFew = 2048;  // logits that fit in shared memory

using Sum = unsigned long long;

// A probability relative to the greatest, scaled to 2^32. difference: (logit - greatest logit) / temperature.
__device__ Sum weight_of(float difference) {
    return static_cast<Sum>(expf(difference) * 4294967296.0f);
}

// Maps a float to an unsigned key of the same order, and back. -0 and 0 have the same key.
__device__ unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ float float_of(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

struct Shared {
    Sum bins[kBins];
    Sum sums[kThreads];
    float tops[kThreads];  // of each thread's logits; first used per warp
    int places[kThreads / 32];
    float few[kMaxFew];    // logits of `ids`
    int32_t ids[kMaxFew];  // ascending
    unsigned prefix;
    Sum rest;
    Sum group;
    int chosen;
};

// The logits that may be sampled, in order of tokens.
struct Logits {
    const float* x;  // [n]
    int n;
    const int32_t* ids;  // [n] tokens; null: 0 to n-1
};

// The last logit kept, in descending order of logits and ascending order of places.
struct Cut {
    unsigned key = 0;
    int place = INT_MAX;

    __device__ bool keeps(float x, int i) const {
        const unsigned other = key_of(x);
        return other > key || (other == key && i <= place);
    }
};

// Consecutive places of a thread.
struct Range {
    int begin;
    int end;
};

__device__ Range range_of(int n) {
    const int each = (n + kThreads - 1) / kThreads;
    const int begin = min(n, static_cast<int>(threadIdx.x) * each);
    return {begin, min(n, begin + each)};
}

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

// Sum over the threads before this one.
__device__ Sum sum_before(Sum mine, Shared& s) {
    __syncthreads();
    s.sums[threadIdx.x] = mine;
    __syncthreads();
    for (int step = 1; step < kThreads; step *= 2) {
        const Sum before = static_cast<int>(threadIdx.x) >= step ? s.sums[threadIdx.x - step] : 0;
        __syncthreads();
        s.sums[threadIdx.x] += before;
        __syncthreads();
    }
    const Sum sum = s.sums[threadIdx.x] - mine;
    __syncthreads();
    return sum;
}

// Radix select: the largest key for which the weights of all keys >= it sum to at least `target`, which is above 0. One
// byte per pass, highest byte first. s.rest: target minus the weights of all greater keys. s.group: weight of the key.
template <class Weight>
__device__ unsigned select_key(const float* x, int n, Sum target, Shared& s, Weight weight) {
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
            const unsigned key = key_of(x[i]);
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) {
                const Sum w = weight(x[i], i);
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
            s.group = s.bins[bin];
        }
    }
    __syncthreads();
    const unsigned key = s.prefix;
    __syncthreads();
    return key;
}

// Cut after the fewest greatest logits whose weights sum to at least `target`. Only logits with keeps(x, place) count;
// weigh(x) is the weight of one.
template <class Keeps, class Weigh>
__device__ Cut select(const Logits& logits, Sum target, Shared& s, Keeps keeps, Weigh weigh) {
    const unsigned key =
        select_key(logits.x, logits.n, target, s, [&](float x, int i) { return keeps(x, i) ? weigh(x) : Sum{0}; });
    // Of the logits equal to the last one, the first `ties` are kept.
    const Sum weight = max(weigh(float_of(key)), Sum{1});
    const Sum ties = (s.rest + weight - 1) / weight;
    const Range range = range_of(logits.n);
    const auto is_tie = [&](int i) { return key_of(logits.x[i]) == key && keeps(logits.x[i], i); };
    Sum mine = 0;
    for (int i = range.begin; i < range.end; ++i) {
        mine += is_tie(i) ? 1 : 0;
    }
    if (threadIdx.x == 0) {
        s.chosen = 0;  // stays if the row has NaN
    }
    Sum sum = sum_before(mine, s);
    if (sum < ties && ties <= sum + mine) {
        for (int i = range.begin; i < range.end; ++i) {
            sum += is_tie(i) ? 1 : 0;
            if (sum == ties) {
                s.chosen = i;
                break;
            }
        }
    }
    __syncthreads();
    const Cut cut{key, s.chosen};
    __syncthreads();
    return cut;
}

// Copies the candidates for the top_k to shared memory, where the next passes read them. A candidate is at least the
// top_k-th greatest of the threads' maxima, because at least top_k logits are. Returns all logits if the candidates do
// not fit.
__device__ Logits compact(const Logits& logits, unsigned top_k, float top_of_thread, Shared& s) {
    __syncthreads();
    s.tops[threadIdx.x] = top_of_thread;
    __syncthreads();
    const unsigned least = select_key(s.tops, kThreads, top_k, s, [](float, int) { return Sum{1}; });
    const Range range = range_of(logits.n);
    int mine = 0;
    for (int i = range.begin; i < range.end; ++i) {
        mine += key_of(logits.x[i]) >= least ? 1 : 0;
    }
    const Sum n = total_of(mine, s);
    int to = static_cast<int>(sum_before(mine, s));
    if (n > kMaxFew) {
        return logits;
    }
    for (int i = range.begin; i < range.end; ++i) {
        if (key_of(logits.x[i]) >= least) {
            s.few[to] = logits.x[i];
            s.ids[to++] = i;
        }
    }
    __syncthreads();
    return {s.few, static_cast<int>(n), s.ids};
}

}  // namespace

}  // namespace lk::cuda
