#include "backend/sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/half.h"

namespace lk {

void check_sampling(const lk_sampling& s) {
    LK_CHECK(s.temperature >= 0 && std::isfinite(s.temperature), LK_INVALID_ARGUMENT,
             "temperature is %g; it must be 0 (always the most probable token) or a positive number", s.temperature);
    LK_CHECK(s.top_p > 0 && s.top_p <= 1, LK_INVALID_ARGUMENT, "top_p is %g; it must be above 0 and at most 1",
             s.top_p);
    LK_CHECK(s.min_p >= 0 && s.min_p <= 1, LK_INVALID_ARGUMENT, "min_p is %g; it must be 0 to 1", s.min_p);
}

double uniform_draw(uint64_t seed, int32_t seq, uint32_t position) {
    // SplitMix64 (Steele, Lea, Flood 2014) of seed, sequence and position.
    uint64_t x =
        seed + 0x9e3779b97f4a7c15u * (1 + (static_cast<uint64_t>(static_cast<uint32_t>(seq)) << 32 | position));
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return static_cast<double>(x >> 11) * 0x1p-53;
}

namespace {

// exp(difference) as an integer, scaled to 2^32, so that sums do not depend on their order. difference:
// (logit - largest logit) / temperature.
uint64_t weight_of(float difference) {
    return static_cast<uint64_t>(std::exp(difference) * 4294967296.0f);
}

// Checks the logits and returns the largest one, the first if there are several.
const float* checked_top(const float* logits, int n_vocab) {
    int n_infinite = 0;  // or NaN; a count vectorizes, an early exit does not
    for (int i = 0; i < n_vocab; ++i) {
        n_infinite += (bits_as<uint32_t>(logits[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
    }
    if (n_infinite > 0) {
        const float* const broken =
            std::find_if(logits, logits + n_vocab, [](float x) { return !(x <= FLT_MAX); });  // -infinity is allowed
        LK_CHECK(broken == logits + n_vocab, LK_NUMERIC_ERROR,
                 "output: the logit of token %td is %s; no token can be sampled", broken - logits,
                 std::isnan(*broken) ? "NaN" : "infinite");
        LK_CHECK(n_infinite < n_vocab, LK_NUMERIC_ERROR, "output: every logit is -infinity; no token can be sampled");
    }
    return std::max_element(logits, logits + n_vocab);
}

}  // namespace

int32_t sample_row(const float* logits, int n_vocab, const lk_sampling& s, double draw) {
    const float* const top = checked_top(logits, n_vocab);
    if (s.temperature == 0) {
        return static_cast<int32_t>(top - logits);
    }
    float least = -INFINITY;  // smallest logit to keep
    std::vector<float> sorted(logits, logits + n_vocab);
    if (s.top_k > 0 && s.top_k < static_cast<uint32_t>(n_vocab)) {
        std::nth_element(sorted.begin(), sorted.begin() + s.top_k - 1, sorted.end(), std::greater<>());
        least = sorted[s.top_k - 1];
        sorted.erase(std::remove_if(sorted.begin(), sorted.end(), [&](float x) { return x < least; }), sorted.end());
    }
    if (s.top_p < 1) {
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        uint64_t total = 0;
        for (const float x : sorted) {
            total += weight_of(x - *top);
        }
        const auto wanted = static_cast<uint64_t>(static_cast<double>(s.top_p) * static_cast<double>(total));
        uint64_t sum = 0;
        for (size_t i = 0; i < sorted.size() && sum < wanted; ++i) {
            sum += weight_of(sorted[i] - *top);
            least = sorted[i];
        }
    }
    if (s.min_p > 0) {
        least = std::max(least, *top + std::log(s.min_p));
    }
    const auto weight = [&](int i) { return logits[i] >= least ? weight_of((logits[i] - *top) / s.temperature) : 0; };
    uint64_t total = 0;
    for (int i = 0; i < n_vocab; ++i) {
        total += weight(i);
    }
    const auto target = static_cast<uint64_t>(draw * static_cast<double>(total));
    uint64_t sum = 0;
    for (int i = 0; i < n_vocab; ++i) {
        sum += weight(i);
        if (sum > target) {
            return i;
        }
    }
    return static_cast<int32_t>(top - logits);
}

}  // namespace lk
