#include "kv/quantizer.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quant/blocks.h"

namespace lk::kv {

namespace {

struct Range {
    float min;
    float max;
};

// Range of n values, `stride` apart.
Range range_of(const float* x, int n, int stride) {
    Range r{x[0], x[0]};
    for (int i = 0; i < n; ++i) {
        const float v = x[static_cast<ptrdiff_t>(i) * stride];
        r.min = std::min(r.min, v);
        r.max = std::max(r.max, v);
    }
    return r;
}

using ChannelMask = std::bitset<kMaxHeadSize>;

int channel_levels(const PageFormat& f, const ChannelMask& is_refined, int channel) {
    return code_levels(f.bits, f.refined_keys() && is_refined[channel]);
}

ChannelMask refined_mask(const HeadTable& table) {
    ChannelMask mask;
    for (const uint16_t c : table.refined) {
        mask[c] = true;
    }
    return mask;
}

half_t load_half(const uint8_t* p) {
    half_t h;
    std::memcpy(&h, p, sizeof h);
    return h;
}

void store_half(uint8_t* p, half_t h) {
    std::memcpy(p, &h, sizeof h);
}

// Offset of scale number i: [group, channel] for keys, [token, channel group] for values.
size_t scale_offset(const PageFormat& f, int outer, int inner) {
    const int width = f.side == Side::keys ? f.head_size : f.scale_groups;
    return static_cast<size_t>(outer) * width + inner;
}

// Calls visit(first, last, range) for each whole token group among the rows, sinks left out.
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

// The D/4 channels with the widest mean group range, ascending; ties go to the lower index.
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
    refined.assign(order, order + f.head_size / 4);
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

// mu: [D]; null: zeros.
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

// The channels' medians, or zeros where centring does not pay. column: [n_rows] to work in.
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

// A value of kivi2, centred and rotated, with its codes and unbiased scale.
struct RotatedValue {
    float w[kMaxHeadSize];
    uint8_t codes[kMaxHeadSize];  // level = code - 3/2
    float scale;

    RotatedValue(const float* row, const std::vector<half_t>& mu, int head_size) : scale(0) {
        double square = 0;
        for (int c = 0; c < head_size; ++c) {
            w[c] = row[c] - half_to_float(mu[c]);
        }
        hadamard(w, head_size);
        for (int c = 0; c < head_size; ++c) {
            square += static_cast<double>(w[c]) * w[c];
        }
        const float step = value_step(square / head_size);
        double along = 0;  // <w, levels>
        for (int c = 0; c < head_size; ++c) {
            const int code = value_code(w[c], step);
            codes[c] = static_cast<uint8_t>(code);
            along += static_cast<double>(w[c]) * value_level(code);
        }
        scale = unbiased_scale(square, along);
    }
};

void quantize_keys(const PageFormat& f, const HeadTable& table, const float* rows, int token, int sinks,
                   uint8_t* page) {
    const ChannelMask refined = refined_mask(table);
    const int group = token / f.group;
    int next_refined = 0;
    for (int c = 0; c < f.head_size; ++c) {
        const int levels = channel_levels(f, refined, c);
        const bool split = levels > 1 << f.bits;
        const int low_row = split ? f.head_size + next_refined++ : 0;
        const float* column = rows + c;
        const Range range = sinks < f.group ? range_of(column + static_cast<ptrdiff_t>(sinks) * f.head_size,
                                                       f.group - sinks, f.head_size)
                                            : Range{0, 0};
        const size_t at = scale_offset(f, group, c);
        const auto store_codes = [&](const auto& pair) {
            for (int t = 0; t < f.group; ++t) {
                const int code =
                    t < sinks ? 0 : group_code(column[static_cast<ptrdiff_t>(t) * f.head_size], pair.s, pair.m, levels);
                set_code(page, key_code_place(f, token + t, c), f.bits, split ? code >> 2 : code);
                if (split) {
                    set_code(page, key_code_place(f, token + t, low_row), f.bits, code & 3);
                }
            }
        };
        if (f.scale_kind == ScaleKind::half_pair) {
            const HalfPair pair(range.min, range.max, levels);
            store_half(page + f.scales_offset + at * 4, pair.scale);
            store_half(page + f.scales_offset + at * 4 + 2, pair.min);
            store_codes(pair);
        } else {
            const BytePair pair(range.min, range.max, levels, table.exponent);
            page[f.scales_offset + at] = pair.scale;
            page[f.zeros_offset + at] = static_cast<uint8_t>(pair.zero);
            store_codes(pair);
        }
    }
}

void quantize_value(const PageFormat& f, const HeadTable& table, const float* row, int token, uint8_t* page) {
    if (f.scale_kind == ScaleKind::byte_token) {
        const RotatedValue value(row, table.mu, f.head_size);
        page[f.scales_offset + token] = byte_scale_round_nearest(value.scale, table.exponent);
        for (int c = 0; c < f.head_size; ++c) {
            set_code(page, value_code_place(f, token, c), f.bits, value.codes[c]);
        }
        return;
    }
    const int levels = 1 << f.bits;
    for (int g = 0; g < f.scale_groups; ++g) {
        const int begin = g * f.group;
        const int end = std::min(begin + f.group, f.head_size);
        const Range range = range_of(row + begin, end - begin, 1);
        const size_t at = scale_offset(f, token, g);
        const auto store_codes = [&](const auto& pair) {
            for (int c = begin; c < end; ++c) {
                set_code(page, value_code_place(f, token, c), f.bits, group_code(row[c], pair.s, pair.m, levels));
            }
        };
        if (f.scale_kind == ScaleKind::half_pair) {
            const HalfPair pair(range.min, range.max, levels);
            store_half(page + f.scales_offset + at * 4, pair.scale);
            store_half(page + f.scales_offset + at * 4 + 2, pair.min);
            store_codes(pair);
        } else {
            const BytePair pair(range.min, range.max, levels, table.exponent);
            page[f.scales_offset + at] = pair.scale;
            page[f.zeros_offset + at] = static_cast<uint8_t>(pair.zero);
            store_codes(pair);
        }
    }
}

}  // namespace

void hadamard(float* x, int n) {
    const int block = n & -n;
    const float norm = 1.0f / std::sqrt(static_cast<float>(block));
    for (int start = 0; start < n; start += block) {
        float* b = x + start;
        for (int half = 1; half < block; half *= 2) {
            for (int i = 0; i < block; i += 2 * half) {
                for (int j = i; j < i + half; ++j) {
                    const float u = b[j];
                    const float v = b[j + half];
                    b[j] = u + v;
                    b[j + half] = u - v;
                }
            }
        }
        for (int i = 0; i < block; ++i) {
            b[i] *= norm;
        }
    }
}

namespace {

void quantize_block(const float* x, BlockQ8_0& b) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
        largest = std::max(largest, std::fabs(x[i]));
    }
    const float d = q8_scale(largest);
    b.d = float_to_half(d);
    for (int i = 0; i < kBlock; ++i) {
        b.qs[i] = static_cast<int8_t>(q8_code(x[i], d));
    }
}

void quantize_block(const float* x, BlockQ4_0& b) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
        largest = std::fabs(x[i]) > std::fabs(largest) ? x[i] : largest;
    }
    const float d = q4_scale(largest);
    b.d = float_to_half(d);
    for (int i = 0; i < kBlock / 2; ++i) {
        b.qs[i] = static_cast<uint8_t>(q4_code(x[i], d) | q4_code(x[i + kBlock / 2], d) << 4);
    }
}

template <class Block>
void quantize_block_row(const float* x, int n, uint8_t* out) {
    for (int i = 0; i < n / kBlock; ++i) {
        quantize_block(x + i * kBlock, reinterpret_cast<Block*>(out)[i]);
    }
}

}  // namespace

void reserve_lists(const PageFormat& f, HeadTable& table) {
    table.refined.reserve(f.rows - f.head_size);
    table.mu.reserve(f.scale_kind == ScaleKind::byte_token ? f.head_size : 0);
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
    if (f.scale_kind != ScaleKind::byte_pair && f.scale_kind != ScaleKind::byte_token) {
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
                max_scale = std::max(max_scale, RotatedValue(row, table.mu, f.head_size).scale);
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

void quantize_rows(const PageFormat& f, const HeadTable& table, const float* rows, int n_rows, int token, int sinks,
                   uint8_t* page) noexcept {
    if (f.blocks()) {
        float rotated[kMaxHeadSize];
        for (int t = 0; t < n_rows; ++t) {
            const float* row = rows + static_cast<ptrdiff_t>(t) * f.head_size;
            std::copy_n(row, f.head_size, rotated);
            hadamard(rotated, f.head_size);
            uint8_t* out = page + static_cast<size_t>(token + t) * f.row_bytes();
            f.bits == 8 ? quantize_block_row<BlockQ8_0>(rotated, f.head_size, out)
                        : quantize_block_row<BlockQ4_0>(rotated, f.head_size, out);
        }
        return;
    }
    if (f.side == Side::keys) {
        quantize_keys(f, table, rows, token, sinks, page);
        return;
    }
    for (int t = sinks; t < n_rows; ++t) {
        quantize_value(f, table, rows + static_cast<ptrdiff_t>(t) * f.head_size, token + t, page);
    }
}

void dequantize_row(const PageFormat& f, const HeadTable& table, const uint8_t* page, int token, float* out) {
    const auto scale_and_min = [&](int outer, int inner, float& s, float& m) {
        const size_t at = scale_offset(f, outer, inner);
        if (f.scale_kind == ScaleKind::half_pair) {
            s = half_to_float(load_half(page + f.scales_offset + at * 4));
            m = half_to_float(load_half(page + f.scales_offset + at * 4 + 2));
        } else {
            s = byte_scale_decode(page[f.scales_offset + at], table.exponent);
            m = zero_point_decode(s, static_cast<int8_t>(page[f.zeros_offset + at]));
        }
    };
    if (!f.quantized()) {
        for (int c = 0; c < f.head_size; ++c) {
            out[c] = half_to_float(load_half(page + (static_cast<size_t>(token) * f.head_size + c) * 2));
        }
        return;
    }
    if (f.blocks()) {
        lk::dequantize_row(block_type(f), page + static_cast<size_t>(token) * f.row_bytes(), out, f.head_size);
        hadamard(out, f.head_size);
        return;
    }
    if (f.side == Side::keys) {
        const ChannelMask refined = refined_mask(table);
        int next_refined = 0;
        for (int c = 0; c < f.head_size; ++c) {
            float s = 0;
            float m = 0;
            scale_and_min(token / f.group, c, s, m);
            int code = get_code(page, key_code_place(f, token, c), f.bits);
            if (refined[c]) {
                code = 4 * code + get_code(page, key_code_place(f, token, f.head_size + next_refined++), f.bits);
            }
            out[c] = s * static_cast<float>(code) + m;
        }
        return;
    }
    if (f.scale_kind == ScaleKind::byte_token) {
        const float s = byte_scale_decode(page[f.scales_offset + token], table.exponent);
        for (int c = 0; c < f.head_size; ++c) {
            out[c] = s * value_level(get_code(page, value_code_place(f, token, c), f.bits));
        }
        hadamard(out, f.head_size);
        for (int c = 0; c < f.head_size; ++c) {
            out[c] += half_to_float(table.mu[c]);
        }
        return;
    }
    for (int c = 0; c < f.head_size; ++c) {
        float s = 0;
        float m = 0;
        scale_and_min(token, c / f.group, s, m);
        out[c] = s * static_cast<float>(get_code(page, value_code_place(f, token, c), f.bits)) + m;
    }
}

}  // namespace lk::kv
