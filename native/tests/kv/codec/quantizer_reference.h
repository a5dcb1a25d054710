// Reference implementation of the paper's quantizer, in double, over explicit lists of elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/half.h"
#include "kv/codec/kivi_format.h"

namespace lk::test {

// The paper's quantizer for one group.
struct PaperGroup {
    half_t scale;
    half_t min;
    std::vector<int> codes;
    std::vector<double> values;

    PaperGroup(const std::vector<double>& x, int bits) {
        const int top = (1 << bits) - 1;
        const double mn = *std::min_element(x.begin(), x.end());
        const double mx = *std::max_element(x.begin(), x.end());
        scale = float_to_half(static_cast<float>((mx - mn) / top));
        min = float_to_half(static_cast<float>(mn));
        const double s = half_to_float(scale);
        const double m = half_to_float(min);
        for (const double v : x) {
            codes.push_back(s == 0 ? 0 : static_cast<int>(std::nearbyint(std::clamp((v - m) / s, 0.0, double(top)))));
            values.push_back(codes.back() * s + m);
        }
    }
};

// Elements (token, channel) of each group of a page, in the order of its scales. Key groups run along tokens, value
// groups along channels.
inline std::vector<std::vector<std::pair<int, int>>> groups_of(kv::Side side, int d, int g) {
    std::vector<std::vector<std::pair<int, int>>> groups;
    for (int t = 0; t < kv::kPageTokens; t += side == kv::Side::keys ? g : 1) {
        for (int c = 0; c < d; c += side == kv::Side::keys ? 1 : g) {
            groups.emplace_back();
            for (int i = 0; i < g && (side == kv::Side::keys || c + i < d); ++i) {
                groups.back().push_back(side == kv::Side::keys ? std::pair(t + i, c) : std::pair(t, c + i));
            }
        }
    }
    return groups;
}

}  // namespace lk::test
