#include "backend/sampling.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/half.h"

namespace lk {

namespace {

void check_recent(const lk_sampling& s, size_t row, int n_vocab) {
    LK_CHECK(s.n_recent == 0 || s.recent != nullptr, LK_INVALID_ARGUMENT,
             "sampling %zu: recent is NULL and n_recent %u; give the tokens or 0", row, s.n_recent);
    for (uint32_t i = 0; i < s.n_recent; ++i) {
        const lk_token_count& t = s.recent[i];
        LK_CHECK(t.token >= 0 && t.token < n_vocab, LK_INVALID_ARGUMENT,
                 "sampling %zu: recent[%u] is token %d; this model's tokens are 0 to %d", row, i, t.token, n_vocab - 1);
        LK_CHECK(i == 0 || t.token > s.recent[i - 1].token, LK_INVALID_ARGUMENT,
                 "sampling %zu: recent[%u] is token %d after token %d; the tokens must ascend", row, i, t.token,
                 s.recent[i - 1].token);
        LK_CHECK(t.count > 0, LK_INVALID_ARGUMENT, "sampling %zu: recent[%u] has a count of 0; leave the token out",
                 row, i);
    }
}

void check_sampling(const lk_sampling& s, size_t row, int n_vocab) {
    LK_CHECK(s.temperature >= 0 && std::isfinite(s.temperature), LK_INVALID_ARGUMENT,
             "sampling %zu: temperature is %g; it must be 0 (always the most probable token) or a positive number", row,
             s.temperature);
    LK_CHECK(s.top_p > 0 && s.top_p <= 1, LK_INVALID_ARGUMENT,
             "sampling %zu: top_p is %g; it must be above 0 and at most 1", row, s.top_p);
    LK_CHECK(s.min_p >= 0 && s.min_p <= 1, LK_INVALID_ARGUMENT, "sampling %zu: min_p is %g; it must be 0 to 1", row,
             s.min_p);
    LK_CHECK(s.repeat_penalty >= 0 && std::isfinite(s.repeat_penalty), LK_INVALID_ARGUMENT,
             "sampling %zu: repeat_penalty is %g; it must be a positive number, or 0 for none", row, s.repeat_penalty);
    LK_CHECK(std::isfinite(s.frequency_penalty), LK_INVALID_ARGUMENT,
             "sampling %zu: frequency_penalty is %g; it must be a number", row, s.frequency_penalty);
    LK_CHECK(std::isfinite(s.presence_penalty), LK_INVALID_ARGUMENT,
             "sampling %zu: presence_penalty is %g; it must be a number", row, s.presence_penalty);
    LK_CHECK(s.draw >= 0 && s.draw < 1, LK_INVALID_ARGUMENT,
             "sampling %zu: draw is %g; it must be at least 0 and below 1", row, s.draw);
    check_recent(s, row, n_vocab);
}

struct Candidate {
    float logit;
    int32_t id;
};

bool comes_before(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Candidates of a row and their weights, reused by the rows that a thread samples.
struct Candidates {
    std::vector<Candidate> list;
    std::vector<double> weights;   // exp(logit - greatest), parallel to the list
    std::vector<uint64_t> keys;    // scratch of sort
    std::vector<uint64_t> sorted;  // the same
};

void apply_penalties(float* logits, const lk_sampling& s) {
    const float repeat = s.repeat_penalty == 0 ? 1 : s.repeat_penalty;
    for (uint32_t i = 0; i < s.n_recent; ++i) {
        float& logit = logits[s.recent[i].token];
        logit = logit <= 0 ? logit * repeat : logit / repeat;
        logit = logit - static_cast<float>(s.recent[i].count) * s.frequency_penalty - s.presence_penalty;
    }
}

// The largest of logits without NaN, the first if there are several. std::max_element does not vectorize.
const float* first_greatest(const float* logits, int n_vocab) {
    int32_t greatest = INT32_MIN;  // as an integer of the same order
    for (int i = 0; i < n_vocab; ++i) {
        const int32_t bits = bits_as<int32_t>(logits[i]);
        greatest = std::max(greatest, bits ^ (bits >> 31 & INT32_MAX));
    }
    const float top = bits_as<float>(greatest ^ (greatest >> 31 & INT32_MAX));
    return std::find(logits, logits + n_vocab, top);
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
    return first_greatest(logits, n_vocab);
}

// Lists the k greatest logits in descending order.
void select_top(const float* logits, int n_vocab, size_t k, std::vector<Candidate>& list) {
    constexpr int kBlock = 64;
    const size_t capacity = std::max<size_t>(2 * k, 128);
    list.clear();
    list.reserve(capacity);
    float least = -INFINITY;  // only logits above it can be among the k: an equal one has a higher id and loses
    for (int begin = 0; begin < n_vocab; begin += kBlock) {
        const int end = std::min(n_vocab, begin + kBlock);
        int n_above = 0;  // a count vectorizes
        for (int i = begin; i < end; ++i) {
            n_above += logits[i] > least ? 1 : 0;
        }
        for (int i = begin; i < end && n_above > 0; ++i) {
            if (!(logits[i] > least)) {
                continue;
            }
            if (list.size() == capacity) {
                std::nth_element(list.begin(), list.begin() + (k - 1), list.end(), comes_before);
                list.resize(k);
                least = list.back().logit;
                if (!(logits[i] > least)) {
                    continue;
                }
            }
            list.push_back({logits[i], i});
        }
    }
    const size_t n = std::min(k, list.size());
    std::partial_sort(list.begin(), list.begin() + n, list.end(), comes_before);
    list.resize(n);
}

void select_all(const float* logits, int n_vocab, std::vector<Candidate>& list) {
    list.clear();
    for (int i = 0; i < n_vocab; ++i) {
        if (logits[i] > -INFINITY) {
            list.push_back({logits[i], i});
        }
    }
}

// Sorts candidates with ascending ids by comes_before: a stable radix sort, many times faster than comparisons.
void sort(Candidates& c) {
    c.keys.clear();
    for (const Candidate& candidate : c.list) {
        const auto bits = bits_as<uint32_t>(candidate.logit + 0.0f);  // -0 becomes 0
        const uint32_t falling = (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
        c.keys.push_back(uint64_t{falling} << 32 | static_cast<uint32_t>(candidate.id));
    }
    c.sorted.resize(c.keys.size());
    for (int shift = 32; shift < 64; shift += 8) {
        std::array<size_t, 257> begins{};  // by digit
        for (const uint64_t key : c.keys) {
            ++begins[(key >> shift & 255) + 1];
        }
        std::partial_sum(begins.begin(), begins.end(), begins.begin());
        for (const uint64_t key : c.keys) {
            c.sorted[begins[key >> shift & 255]++] = key;
        }
        c.keys.swap(c.sorted);
    }
    for (size_t i = 0; i < c.keys.size(); ++i) {
        const auto falling = static_cast<uint32_t>(c.keys[i] >> 32);
        const uint32_t bits = (falling & 0x80000000u) != 0 ? falling : ~falling & 0x7fffffffu;
        c.list[i] = {bits_as<float>(bits), static_cast<int32_t>(c.keys[i])};
    }
}

// Writes the weights and returns their sum.
double weigh(Candidates& c, double top, double temperature) {
    c.weights.resize(c.list.size());
    double sum = 0;
    for (size_t i = 0; i < c.list.size(); ++i) {
        c.weights[i] = std::exp((c.list[i].logit - top) / temperature);
        sum += c.weights[i];
    }
    return sum;
}

void keep_top_p(Candidates& c, double top, double p) {
    const double wanted = p * weigh(c, top, 1);
    double sum = 0;
    for (size_t i = 0; i < c.list.size(); ++i) {
        sum += c.weights[i];
        if (sum >= wanted) {
            c.list.resize(i + 1);
            return;
        }
    }
}

void keep_min_p(std::vector<Candidate>& list, double top, double p) {
    std::erase_if(list, [&](const Candidate& c) { return std::exp(c.logit - top) < p; });
}

// The candidate at which the cumulative probability exceeds the draw.
int32_t draw_from(Candidates& c, double top, double temperature, double draw) {
    double rest = draw * weigh(c, top, temperature);
    size_t last = 0;
    for (size_t i = 0; i < c.list.size(); ++i) {
        if (c.weights[i] > 0) {
            last = i;
            rest -= c.weights[i];
            if (rest < 0) {
                break;
            }
        }
    }
    return c.list[last].id;
}

}  // namespace

void check_samplings(std::span<const lk_sampling> samplings, int n_vocab) {
    for (size_t row = 0; row < samplings.size(); ++row) {
        if (samplings[row].keep_logits == 0) {
            check_sampling(samplings[row], row, n_vocab);
        }
    }
}

int32_t sample_row(float* logits, int n_vocab, const lk_sampling& s) {
    apply_penalties(logits, s);
    const float* const greatest = checked_top(logits, n_vocab);
    if (s.temperature == 0) {
        return static_cast<int32_t>(greatest - logits);
    }
    const double top = *greatest;
    thread_local Candidates c;
    if (s.top_k > 0 && s.top_k < static_cast<uint32_t>(n_vocab)) {
        select_top(logits, n_vocab, s.top_k, c.list);
    } else {
        select_all(logits, n_vocab, c.list);
        if (s.top_p < 1) {
            sort(c);
        }
    }
    if (s.top_p < 1) {
        keep_top_p(c, top, s.top_p);
    }
    if (s.min_p > 0) {
        keep_min_p(c.list, top, s.min_p);
    }
    return draw_from(c, top, s.temperature, s.draw);
}

}  // namespace lk
