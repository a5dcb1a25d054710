#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>

#include "base/finite.h"
#include "kv/cache.h"

namespace lk {

namespace {

// The (fractional) index of the pair that makes `turns` turns over the original context.
double pair_of_turns(const RopeConfig& c, double turns) {
    return c.n_rot * std::log(c.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(c.freq_base));
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& c, std::span<const float> divisors) {
    double low = 0;
    double high = 0;
    if (c.scaling == RopeScaling::yarn) {
        low = std::max(0.0, std::floor(pair_of_turns(c, c.beta_fast)));
        high = std::min(c.n_rot - 1.0, std::ceil(pair_of_turns(c, c.beta_slow)));
        magnitude = c.attn_factor * static_cast<float>(1 + 0.1 * std::log(c.factor));
    }
    for (int i = 0; i < c.n_rot / 2; ++i) {
        double f = std::pow(c.freq_base, -2.0 * i / c.n_rot);
        if (!divisors.empty()) {
            f /= divisors[i];
        }
        if (c.scaling == RopeScaling::linear) {
            f /= c.factor;
        } else if (c.scaling == RopeScaling::yarn) {
            const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
            f *= (1 - ramp) + ramp / c.factor;
        }
        frequency.push_back(static_cast<float>(f));
    }
}

bool RopeTable::finite() const {
    return is_finite(magnitude) && std::all_of(frequency.begin(), frequency.end(), is_finite);
}

// Angles are computed in double: at position 100,000 a float angle has lost three digits of its fraction of a turn.
void rope_angles(const RopeTable& table, const kv::Cache& cache, std::span<const kv::Segment> segments,
                 float* cos_sin) {
    const size_t n = table.frequency.size();
    for (const kv::Segment& s : segments) {
        for (int i = 0; i < s.n_rows; ++i) {
            const double position = cache.length(s.seq) + i;
            float* row = cos_sin + static_cast<size_t>(s.row + i) * n * 2;
            for (size_t j = 0; j < n; ++j) {
                const double angle = position * table.frequency[j];
                row[2 * j] = static_cast<float>(std::cos(angle)) * table.magnitude;
                row[2 * j + 1] = static_cast<float>(std::sin(angle)) * table.magnitude;
            }
        }
    }
}

}  // namespace lk
