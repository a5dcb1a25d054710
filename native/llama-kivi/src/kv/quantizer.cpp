#include "kv/quantizer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/finite.h"
#include "quant/blocks.h"

namespace lk::kv {

namespace {

constexpr float kLargestByteScale = 1.9375f;  // byte 255 at k = 0

// A zero point is a quarter step in an int8: |min| / scale stays below 126 / 4 steps.
constexpr float kZeroPointLimit = 126.0f;

struct Range {
    float min;
    float max;
};

// Range of n values, `stride` apart.
Range range_of(const float* x, int n, int stride) {
    Range r{x[0], x[0]};
    for (int i = 0; i < n; ++i) {
        const float v = x[static_cast<ptrdiff_t>(i) * stride];
        LK_CHECK(std::isfinite(v), LK_NUMERIC_ERROR,
                 "the KV cache got %s to quantize, which staging refuses: the cache's rows are damaged",
                 std::isnan(v) ? "NaN" : "infinity");
        r.min = std::min(r.min, v);
        r.max = std::max(r.max, v);
    }
    return r;
}

int round_code(float x, int levels) {
    return static_cast<int>(std::nearbyint(std::clamp(x, 0.0f, static_cast<float>(levels - 1))));
}

// One group of the paper's quantizer (KIVI eq. 1 and 2): scale and min rounded to half before use.
struct HalfPair {
    half_t scale;
    half_t min;
    float s;
    float m;

    HalfPair(Range r, int levels)
        : scale(float_to_half((r.max - r.min) / static_cast<float>(levels - 1))),
          min(float_to_half(r.min)),
          s(half_to_float(scale)),
          m(half_to_float(min)) {}

    int code(float x, int levels) const { return s > 0 ? round_code((x - m) / s, levels) : 0; }
};

// Smallest scale a byte pair may use for a range: the zero point rounds down by up to a quarter step, which the top
// level gives back as an eighth.
float byte_pair_scale(Range r, int levels) {
    const float span = (r.max - r.min) / (static_cast<float>(levels - 1) - 0.125f);
    return std::max(span, std::fabs(r.min) * 4.0f / kZeroPointLimit);
}

// One group of the refined quantizer.
struct BytePair {
    uint8_t scale;
    int8_t zero;
    float s;
    float m;

    BytePair(Range r, int levels, int k) : scale(byte_scale_round_up(byte_pair_scale(r, levels), k)), zero(0) {
        s = byte_scale_decode(scale, k);
        if (s > 0) {
            zero = static_cast<int8_t>(std::clamp(std::floor(4.0f * r.min / s), -kZeroPointLimit - 1, kZeroPointLimit));
        }
        m = s * static_cast<float>(zero) * 0.25f;
    }

    int code(float x, int levels) const { return s > 0 ? round_code((x - m) / s, levels) : 0; }
};

int channel_levels(const PageFormat& f, const std::vector<uint8_t>& is_refined, int channel) {
    return f.refined_keys() && is_refined[channel] ? 16 : 1 << f.bits;
}

std::vector<uint8_t> refined_mask(const PageFormat& f, const HeadTable& table) {
    std::vector<uint8_t> mask(f.head_size, 0);
    for (const uint16_t c : table.refined) {
        mask[c] = 1;
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

// The D/4 channels with the widest mean group range; ties go to the lower index.
std::vector<uint16_t> choose_refined(const PageFormat& f, const float* rows, int n_rows, int first, int sinks) {
    std::vector<double> width(f.head_size, 0.0);
    for (int c = 0; c < f.head_size; ++c) {
        for_each_token_group(f, rows, n_rows, first, sinks, c,
                             [&](Range r) { width[c] += static_cast<double>(r.max) - r.min; });
    }
    std::vector<uint16_t> order(f.head_size);
    std::iota(order.begin(), order.end(), uint16_t{0});
    std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) { return width[a] > width[b]; });
    order.resize(f.head_size / 4);
    std::sort(order.begin(), order.end());
    return order;
}

float median(std::vector<float>& x) {
    const size_t middle = x.size() / 2;
    std::nth_element(x.begin(), x.begin() + middle, x.end());
    const float upper = x[middle];
    if (x.size() % 2 == 1) {
        return upper;
    }
    return 0.5f * (*std::max_element(x.begin(), x.begin() + middle) + upper);
}

float median_mean_square(const float* rows, int n_rows, int head_size, const std::vector<half_t>& mu) {
    std::vector<float> squares(n_rows);
    for (int t = 0; t < n_rows; ++t) {
        double sum = 0;
        for (int c = 0; c < head_size; ++c) {
            const double d =
                rows[static_cast<ptrdiff_t>(t) * head_size + c] - (mu.empty() ? 0.0f : half_to_float(mu[c]));
            sum += d * d;
        }
        squares[t] = static_cast<float>(sum / head_size);
    }
    return median(squares);
}

// The channels' medians, or zeros where centring does not pay.
std::vector<half_t> choose_centre(const float* rows, int n_rows, int head_size) {
    constexpr float kWorthwhile = 0.8f;
    std::vector<half_t> mu(head_size);
    std::vector<float> column(n_rows);
    for (int c = 0; c < head_size; ++c) {
        for (int t = 0; t < n_rows; ++t) {
            column[t] = rows[static_cast<ptrdiff_t>(t) * head_size + c];
        }
        mu[c] = float_to_half(median(column));
    }
    if (!(median_mean_square(rows, n_rows, head_size, mu) <
          kWorthwhile * median_mean_square(rows, n_rows, head_size, {}))) {
        std::fill(mu.begin(), mu.end(), half_t{0});
    }
    return mu;
}

// A value of kivi2, centred and rotated, with its codes and unbiased scale.
struct RotatedValue {
    float w[kMaxHeadSize];
    uint8_t codes[kMaxHeadSize];  // level = code - 3/2
    float scale;

    RotatedValue(const float* row, const std::vector<half_t>& mu, int head_size) : scale(0) {
        double square = 0;
        for (int c = 0; c < head_size; ++c) {
            LK_CHECK(
                std::isfinite(row[c]), LK_NUMERIC_ERROR,
                "the KV cache got NaN or infinity to quantize, which staging refuses: the cache's rows are damaged");
            w[c] = row[c] - half_to_float(mu[c]);
        }
        hadamard(w, head_size);
        for (int c = 0; c < head_size; ++c) {
            square += static_cast<double>(w[c]) * w[c];
        }
        // 0.9957 rms is the step of the best uniform four-level quantizer of a Gaussian.
        const float step = 0.9957f * static_cast<float>(std::sqrt(square / head_size));
        double along = 0;  // <w, levels>
        for (int c = 0; c < head_size; ++c) {
            const float code = std::clamp(std::floor(finite_quotient(w[c], step)), -2.0f, 1.0f);
            codes[c] = static_cast<uint8_t>(code + 2.0f);
            along += w[c] * (code + 0.5);
        }
        // Unbiased, not least squares: <s*levels, w> = <w, w>, so attention does not shrink what it averages.
        scale = along > 0 ? static_cast<float>(square / along) : 0.0f;
    }
};

void quantize_keys(const PageFormat& f, const HeadTable& table, const float* rows, int token, int sinks,
                   uint8_t* page) {
    const std::vector<uint8_t> refined = refined_mask(f, table);
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
        const auto store_codes = [&](const auto& quantizer) {
            for (int t = 0; t < f.group; ++t) {
                const int code =
                    t < sinks ? 0 : quantizer.code(column[static_cast<ptrdiff_t>(t) * f.head_size], levels);
                set_code(page, key_code_place(f, token + t, c), f.bits, split ? code >> 2 : code);
                if (split) {
                    set_code(page, key_code_place(f, token + t, low_row), f.bits, code & 3);
                }
            }
        };
        if (f.scale_kind == ScaleKind::half_pair) {
            const HalfPair pair(range, levels);
            store_half(page + f.scales_offset + at * 4, pair.scale);
            store_half(page + f.scales_offset + at * 4 + 2, pair.min);
            store_codes(pair);
        } else {
            const BytePair pair(range, levels, table.exponent);
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
        const auto store_codes = [&](const auto& quantizer) {
            for (int c = begin; c < end; ++c) {
                set_code(page, value_code_place(f, token, c), f.bits, quantizer.code(row[c], levels));
            }
        };
        if (f.scale_kind == ScaleKind::half_pair) {
            const HalfPair pair(range, levels);
            store_half(page + f.scales_offset + at * 4, pair.scale);
            store_half(page + f.scales_offset + at * 4 + 2, pair.min);
            store_codes(pair);
        } else {
            const BytePair pair(range, levels, table.exponent);
            page[f.scales_offset + at] = pair.scale;
            page[f.zeros_offset + at] = static_cast<uint8_t>(pair.zero);
            store_codes(pair);
        }
    }
}

}  // namespace

float byte_scale_decode(uint8_t byte, int k) {
    return std::ldexp(half_to_float(static_cast<half_t>(byte << 6)), k);
}

uint8_t byte_scale_round_up(float scale, int k) {
    const float x = std::ldexp(scale, -k);
    if (!(x > 0)) {
        return 0;
    }
    if (x > kLargestByteScale) {
        return 255;
    }
    if (x < 0x1p-14f) {  // subnormal: steps of 2^-18
        return static_cast<uint8_t>(std::ceil(x * 0x1p18f));
    }
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return static_cast<uint8_t>(((bits + 0x7ffffu) >> 19) - (112u << 4));
}

uint8_t byte_scale_round_nearest(float scale, int k) {
    const float x = std::ldexp(scale, -k);
    if (!(x > 0)) {
        return 0;
    }
    if (x > kLargestByteScale) {
        return 255;
    }
    if (x < 0x1p-14f) {
        return static_cast<uint8_t>(std::nearbyint(x * 0x1p18f));
    }
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return static_cast<uint8_t>(((bits + 0x3ffffu + ((bits >> 19) & 1u)) >> 19) - (112u << 4));
}

int byte_scale_exponent(float max_scale) {
    if (!(max_scale > 0)) {
        return 0;
    }
    int k = 0;
    std::frexp(8.0f * max_scale / kLargestByteScale, &k);  // 8 * max <= largest * 2^k
    return k;
}

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

// ggml's Q8_0: the largest magnitude is 127 steps.
void quantize_block(const float* x, BlockQ8_0& b) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
        largest = std::max(largest, std::fabs(x[i]));
    }
    const float d = largest / 127.0f;
    b.d = float_to_half(d);
    for (int i = 0; i < kBlock; ++i) {
        b.qs[i] = static_cast<int8_t>(std::clamp(std::round(finite_quotient(x[i], d)), -127.0f, 127.0f));
    }
}

// ggml's Q4_0: what is largest in magnitude, with its sign, is -8 steps.
void quantize_block(const float* x, BlockQ4_0& b) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
        largest = std::fabs(x[i]) > std::fabs(largest) ? x[i] : largest;
    }
    const float d = largest / -8.0f;
    b.d = float_to_half(d);
    const auto code = [&](float v) { return std::clamp(static_cast<int>(finite_quotient(v, d) + 8.5f), 0, 15); };
    for (int i = 0; i < kBlock / 2; ++i) {
        b.qs[i] = static_cast<uint8_t>(code(x[i]) | code(x[i + kBlock / 2]) << 4);
    }
}

template <class Block>
void quantize_block_row(const float* x, int n, uint8_t* out) {
    for (int i = 0; i < n / kBlock; ++i) {
        quantize_block(x + i * kBlock, reinterpret_cast<Block*>(out)[i]);
    }
}

}  // namespace

HeadTable choose_head_table(const PageFormat& f, const float* rows, int n_rows, int first, int sinks) {
    HeadTable table;
    if (f.scale_kind != ScaleKind::byte_pair && f.scale_kind != ScaleKind::byte_token) {
        return table;
    }
    const int skip = std::clamp(sinks - first, 0, n_rows - 1);
    float max_scale = 0;
    if (f.side == Side::keys) {
        if (f.refined_keys()) {
            table.refined = choose_refined(f, rows, n_rows, first, sinks);
        }
        const std::vector<uint8_t> refined = refined_mask(f, table);
        for (int c = 0; c < f.head_size; ++c) {
            const int levels = channel_levels(f, refined, c);
            for_each_token_group(f, rows, n_rows, first, sinks, c,
                                 [&](Range r) { max_scale = std::max(max_scale, byte_pair_scale(r, levels)); });
        }
    } else {
        const float* kept = rows + static_cast<ptrdiff_t>(skip) * f.head_size;
        if (f.scale_kind == ScaleKind::byte_token) {
            table.mu = choose_centre(kept, n_rows - skip, f.head_size);
        }
        for (int t = skip; t < n_rows; ++t) {
            const float* row = rows + static_cast<ptrdiff_t>(t) * f.head_size;
            if (f.scale_kind == ScaleKind::byte_token) {
                max_scale = std::max(max_scale, RotatedValue(row, table.mu, f.head_size).scale);
                continue;
            }
            for (int begin = 0; begin < f.head_size; begin += f.group) {
                const int n = std::min(f.group, f.head_size - begin);
                max_scale = std::max(max_scale, byte_pair_scale(range_of(row + begin, n, 1), 1 << f.bits));
            }
        }
    }
    table.exponent = byte_scale_exponent(max_scale);
    return table;
}

void quantize_rows(const PageFormat& f, const HeadTable& table, const float* rows, int n_rows, int token, int sinks,
                   uint8_t* page) {
    if (f.blocks()) {
        float rotated[kMaxHeadSize];
        for (int t = 0; t < n_rows; ++t) {
            const float* row = rows + static_cast<ptrdiff_t>(t) * f.head_size;
            range_of(row, f.head_size, 1);
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
            m = s * static_cast<float>(static_cast<int8_t>(page[f.zeros_offset + at])) * 0.25f;
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
        const std::vector<uint8_t> refined = refined_mask(f, table);
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
            out[c] = s * (static_cast<float>(get_code(page, value_code_place(f, token, c), f.bits)) - 1.5f);
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
