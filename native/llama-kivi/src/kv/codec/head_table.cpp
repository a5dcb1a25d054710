#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/half.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/quantizer_groups.h"
#include "kv/codec/scalar_codec.h"

namespace lk::kv {

namespace {

// Calls visit(first, last, range) for each whole token group among the rows, without sinks.
template <class Visit>
void for_each_token_group(const PageFormat& f, const float* rows, int n_rows, int first, int sinks, int channel,
                          Visit visit) {
    for (int begin = 0; begin < n_rows; begin += f.group) {
        const int end = std::min(begin + f.group, n_rows);
        const int from = std::min(end, std::max(begin, sinks - first));
        if (from < end) {
            visit(range_of(rows + static_cast<ptrdiff_t>(from) * f.head_size + channel, end - from, f.head_size));
        }
    }
}

// Selects the rows - D channels with the widest mean group range, in ascending order; ties go to the lower index.
void choose_refined(const PageFormat& f, const float* rows, int n_rows, int first, int sinks,
                    std::vector<uint16_t>& refined) {
    double width[kMaxHeadSize] = {};
    uint16_t order[kMaxHeadSize];
    for (int c = 0; c < f.head_size; ++c) {
        for_each_token_group(f, rows, n_rows, first, sinks, c,
                             [&](Range r) { width[c] += static_cast<double>(r.max) - r.min; });
    }
    std::iota(order, order + f.head_size, uint16_t{0});
    std::sort(order, order + f.head_size,
              [&](uint16_t a, uint16_t b) { return width[a] != width[b] ? width[a] > width[b] : a < b; });
    refined.assign(order, order + (f.rows - f.head_size));
    std::sort(refined.begin(), refined.end());
}

float median(float* x, int n) {
    const int middle = n / 2;
    std::nth_element(x, x + middle, x + n);
    const float upper = x[middle];
    if (n % 2 == 1) {
        return upper;
    }
    return 0.5f * (*std::max_element(x, x + middle) + upper);
}

// mu: [D], or null for zeros.
float median_mean_square(const float* rows, int n_rows, int head_size, const half_t* mu, float* squares) {
    for (int t = 0; t < n_rows; ++t) {
        double sum = 0;
        for (int c = 0; c < head_size; ++c) {
            const double d =
                rows[static_cast<ptrdiff_t>(t) * head_size + c] - (mu == nullptr ? 0.0f : half_to_float(mu[c]));
            sum += d * d;
        }
        squares[t] = static_cast<float>(sum / head_size);
    }
    return median(squares, n_rows);
}

// Sets mu to the medians of the channels, or to zeros if centring does not help. column: [n_rows] scratch.
void choose_centre(const float* rows, int n_rows, int head_size, float* column, std::vector<half_t>& mu) {
    mu.resize(head_size);
    for (int c = 0; c < head_size; ++c) {
        for (int t = 0; t < n_rows; ++t) {
            column[t] = rows[static_cast<ptrdiff_t>(t) * head_size + c];
        }
        mu[c] = float_to_half(median(column, n_rows));
    }
    const float centred = median_mean_square(rows, n_rows, head_size, mu.data(), column);
    if (!centring_pays(centred, median_mean_square(rows, n_rows, head_size, nullptr, column))) {
        std::fill(mu.begin(), mu.end(), half_t{0});
    }
}

}  // namespace

void reserve_lists(const PageFormat& f, HeadTable& table) {
    table.refined.reserve(f.rows - f.head_size);
    table.mu.reserve(f.scale_kind == ScaleKind::byte_token ? f.head_size : 0);
    table.centre.reserve(f.recipe.key_centre ? f.head_size : 0);
}

HeadTable choose_head_table(const PageFormat& f, const float* rows, int n_rows, int first, int sinks) {
    HeadTable table;
    reserve_lists(f, table);
    std::vector<float> column(n_rows);
    choose_head_table(f, rows, n_rows, first, sinks, column.data(), table);
    return table;
}

void choose_head_table(const PageFormat& f, const float* rows, int n_rows, int first, int sinks, float* column,
                       HeadTable& table) noexcept {
    table.exponent = 0;
    table.refined.clear();
    table.mu.clear();
    table.centre.clear();
    if (!has_table(f)) {
        return;
    }
    const int skip = std::clamp(sinks - first, 0, n_rows - 1);
    float max_scale = 0;
    if (f.side == Side::keys) {
        if (f.refined_keys()) {
            choose_refined(f, rows, n_rows, first, sinks, table.refined);
        }
        const ChannelMask refined = refined_mask(table);
        for (int c = 0; c < f.head_size; ++c) {
            const int levels = channel_levels(f, refined, c);
            for_each_token_group(f, rows, n_rows, first, sinks, c, [&](Range r) {
                max_scale = std::max(max_scale, byte_pair_scale(r.min, r.max, levels));
            });
        }
    } else {
        const float* kept = rows + static_cast<ptrdiff_t>(skip) * f.head_size;
        if (f.scale_kind == ScaleKind::byte_token) {
            choose_centre(kept, n_rows - skip, f.head_size, column, table.mu);
        }
        for (int t = skip; t < n_rows; ++t) {
            const float* row = rows + static_cast<ptrdiff_t>(t) * f.head_size;
            if (f.scale_kind == ScaleKind::byte_token) {
                max_scale = std::max(max_scale, RotatedValue(f, row, table.mu).scale);
                continue;
            }
            for (int begin = 0; begin < f.head_size; begin += f.group) {
                const int n = std::min(f.group, f.head_size - begin);
                const Range r = range_of(row + begin, n, 1);
                max_scale = std::max(max_scale, byte_pair_scale(r.min, r.max, 1 << f.bits));
            }
        }
    }
    table.exponent = byte_scale_exponent(max_scale);
}

}  // namespace lk::kv
