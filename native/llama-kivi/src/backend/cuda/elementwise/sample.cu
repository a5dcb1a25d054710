// Samples tokens from logits, as backend/sampling.cpp does. One thread block per row. Weights are integers, so that
// sums do not depend on their order.
#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/elementwise/elementwise.h"
#include "backend/cuda/elementwise/sample_stages.cuh"
#include "base/finite.h"

namespace lk::cuda {

namespace {

// Applies penalties to the logits of recent tokens, without contraction, as on the CPU.
__device__ void apply_penalties(float* logits, const lk_sampling& sampling, const Watch& watch) {
    const float repeat = sampling.repeat_penalty == 0 ? 1 : sampling.repeat_penalty;
    for (unsigned i = threadIdx.x; i < sampling.n_recent; i += kThreads) {
        const lk_token_count recent = sampling.recent[i];
        float logit = logits[recent.token];
        if (!is_finite(logit)) {
            report(watch.broken, watch.place);
        }
        logit = logit <= 0 ? __fmul_rn(logit, repeat) : __fdiv_rn(logit, repeat);
        logit = __fsub_rn(logit, __fmul_rn(static_cast<float>(recent.count), sampling.frequency_penalty));
        logits[recent.token] = __fsub_rn(logit, sampling.presence_penalty);
    }
    __syncthreads();
}

struct Greatest {
    float logit;
    int place;        // the lowest of equal ones
    float of_thread;  // greatest logit that this thread read
};

// Argmax. Reports logits that are not finite; a penalty may make one -infinity.
__device__ Greatest greatest_of(const float* logits, int n, bool penalized, Shared& s, const Watch& watch) {
    float top = -INFINITY;
    int place = 0;
    bool finite = true;
    for (int i = threadIdx.x; i < n; i += kThreads) {
        finite = finite && (is_finite(logits[i]) || (penalized && logits[i] == -INFINITY));
        if (logits[i] > top) {
            top = logits[i];
            place = i;
        }
    }
    if (!finite) {
        report(watch.broken, watch.place);
    }
    const float of_thread = top;
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
    return {top, place, of_thread};
}

// The place at which the cumulative weight, in order of tokens, exceeds draw * total.
template <class Weight>
__device__ int draw_in_token_order(const Logits& logits, Sum total, double draw, int otherwise, Shared& s,
                                   Weight weight) {
    const Sum target = static_cast<Sum>(draw * static_cast<double>(total));
    const Range range = range_of(logits.n);
    Sum mine = 0;
    for (int i = range.begin; i < range.end; ++i) {
        mine += weight(logits.x[i], i);
    }
    if (threadIdx.x == 0) {
        s.chosen = otherwise;
    }
    Sum sum = sum_before(mine, s);
    if (sum <= target && target < sum + mine) {
        for (int i = range.begin; i < range.end; ++i) {
            sum += weight(logits.x[i], i);
            if (sum > target) {
                s.chosen = i;
                break;
            }
        }
    }
    __syncthreads();
    return s.chosen;
}

// Samples a token from the softmax of a row.
__device__ int draw_token(const float* row, int n_vocab, const lk_sampling& sampling, const Greatest& greatest,
                          Shared& s) {
    const float top = greatest.logit;
    const float temperature = sampling.temperature;
    const bool limits = sampling.top_k > 0 && sampling.top_k < static_cast<unsigned>(n_vocab);
    Logits logits{row, n_vocab, nullptr};
    if (limits && sampling.top_k <= kThreads && n_vocab > kMaxFew) {
        logits = compact(logits, sampling.top_k, greatest.of_thread, s);
    }
    Cut most;  // top_k
    if (limits) {
        most = select(
            logits, sampling.top_k, s, [](float, int) { return true; }, [](float) { return Sum{1}; });
    }
    const auto total = [&](auto weight) {
        Sum mine = 0;
        for (int i = threadIdx.x; i < logits.n; i += kThreads) {
            mine += weight(logits.x[i], i);
        }
        return total_of(mine, s);
    };
    Cut nucleus;  // top_p
    if (sampling.top_p < 1) {
        const auto keeps = [&](float x, int i) { return most.keeps(x, i); };
        const auto weigh = [&](float x) { return weight_of(x - top); };
        const Sum all = total([&](float x, int i) { return keeps(x, i) ? weigh(x) : Sum{0}; });
        const Sum wanted = __double2ull_ru(static_cast<double>(sampling.top_p) * static_cast<double>(all));
        nucleus = select(logits, max(Sum{1}, min(wanted, all)), s, keeps, weigh);
    }
    const float least = sampling.min_p > 0 ? logf(sampling.min_p) : -INFINITY;
    const auto keeps = [&](float x, int i) { return x - top >= least && most.keeps(x, i) && nucleus.keeps(x, i); };
    const auto weigh = [&](float x) { return weight_of((x - top) / temperature); };
    const auto weight = [&](float x, int i) { return keeps(x, i) ? weigh(x) : Sum{0}; };
    const Sum all = total(weight);
    int place;
    if (limits || sampling.top_p < 1) {
        const Sum target = static_cast<Sum>(sampling.draw * static_cast<double>(all)) + 1;
        place = select(logits, min(target, all), s, keeps, weigh).place;
    } else {
        place = draw_in_token_order(logits, all, sampling.draw, greatest.place, s, weight);
    }
    return logits.ids != nullptr ? logits.ids[place] : place;
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(float* all, int n, const lk_sampling* samplings, int32_t* tokens, const Watch watch) {
    __shared__ Shared s;
    after_previous();
    float* const logits = all + static_cast<size_t>(blockIdx.x) * n;
    const lk_sampling sampling = samplings[blockIdx.x];
    apply_penalties(logits, sampling, watch);
    const Greatest greatest = greatest_of(logits, n, sampling.n_recent > 0, s, watch);
    int token = greatest.place;
    if (sampling.keep_logits != 0) {
        token = -1;
    } else if (greatest.logit == -INFINITY) {
        report(watch.broken, watch.place);
    } else if (sampling.temperature > 0) {
        token = draw_token(logits, n, sampling, greatest, s);
    }
    if (threadIdx.x == 0) {
        tokens[blockIdx.x] = token;
    }
}

}  // namespace

void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens, const Watch& watch,
            Stream& stream) {
    queue(sample_kernel, n, kThreads, 0, stream, logits, n_vocab, samplings, tokens, watch);
}

}  // namespace lk::cuda
