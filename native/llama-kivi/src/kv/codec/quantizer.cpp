#include "kv/codec/quantizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer_groups.h"
#include "kv/codec/scalar_codec.h"
#include "kv/codec/stock_blocks.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk::kv {

namespace {

void quantize_value(const PageFormat& f, const HeadTable& table, const float* row, int token, uint8_t* page) {
    if (f.scale_kind == ScaleKind::byte_token) {
        const RotatedValue value(f, row, table.mu);
        page[f.scales_offset + token] = byte_scale_round_nearest(value.scale, table.exponent);
        for (int c = 0; c < f.head_size; ++c) {
            set_value(f, page, token, c, value.codes[c]);
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
                set_value(f, page, token, c, group_code(row[c], pair.s, pair.m, levels));
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

void quantize_rows(const PageFormat& f, const HeadTable& table, const float* rows, int n_rows, int token, int sinks,
                   uint8_t* page) noexcept {
    if (f.blocks()) {
        float rotated[kMaxHeadSize];
        for (int t = 0; t < n_rows; ++t) {
            const float* row = rows + static_cast<ptrdiff_t>(t) * f.head_size;
            uint8_t* const out = page + static_cast<size_t>(token + t) * f.row_bytes();
            if (t < sinks) {  // the row may be exact or from a q8_0 ring, which depends on the call
                std::fill_n(out, f.row_bytes(), uint8_t{0});
                continue;
            }
            std::copy_n(row, f.head_size, rotated);
            hadamard(rotated, f.head_size);
            encode_blocks(f.type, rotated, f.head_size, out);
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

void encode_q8_row(const float* x, int n, uint8_t* blocks) noexcept {
    for (int begin = 0; begin < n; begin += kBlock) {
        const int size = std::min(kBlock, n - begin);
        int32_t most = 0;  // finite magnitudes order like their bits
        for (int c = begin; c < begin + size; ++c) {
            most = std::max(most, bits_as<int32_t>(std::fabs(x[c])));
        }
        const float d = std::min(q8_scale(bits_as<float>(most)), kLargestQ8Scale);
        int8_t codes[kBlock];
        const float divisor = d > 0 ? d : 1.0f;  // 0 if all elements are, almost
        const float top = d > 0 ? kQ8Steps : 0.0f;
        for (int c = 0; c < size; ++c) {
            codes[c] = static_cast<int8_t>(rounded_away(clamped(x[begin + c] / divisor, -top, top)));
        }
        store_half(blocks, float_to_half(d));
        std::memcpy(blocks + sizeof(half_t), codes, size);
        blocks += sizeof(half_t) + size;
    }
}

void decode_q8_row(const uint8_t* blocks, int n, float* out) noexcept {
    for (int begin = 0; begin < n; begin += kBlock) {
        const int size = std::min(kBlock, n - begin);
        const float d = half_to_float(load_half(blocks));
        int8_t codes[kBlock];
        std::memcpy(codes, blocks + sizeof(half_t), size);
        for (int c = 0; c < size; ++c) {
            out[begin + c] = d * static_cast<float>(codes[c]);
        }
        blocks += sizeof(half_t) + size;
    }
}

void decode_q8_row(const uint8_t* blocks, int n, half_t* out) noexcept {
    float x[kMaxHeadSize];
    decode_q8_row(blocks, n, x);
    std::transform(x, x + n, out, float_to_half);
}

bool is_finite_q8_row(const uint8_t* blocks, int n) noexcept {
    constexpr half_t kSmall = 0x6000;  // 512: smaller scales times codes from -128 on are at most the largest half
    bool small = true;
    const uint8_t* scale = blocks;
    for (int begin = 0; begin < n; begin += kBlock, scale += sizeof(half_t) + kBlock) {
        small &= (load_half(scale) & 0x7fff) < kSmall;
    }
    if (small) {
        return true;
    }
    half_t x[kMaxHeadSize];
    decode_q8_row(blocks, n, x);
    return std::all_of(x, x + n, [](half_t element) { return (element & 0x7c00) != 0x7c00; });
}

void clear_tokens(const PageFormat& f, int first, uint8_t* page) noexcept {
    const auto clear = [&](size_t begin, size_t end) { std::fill(page + begin, page + end, uint8_t{0}); };
    if (f.scale_kind == ScaleKind::none || f.scale_kind == ScaleKind::block) {
        clear(first * f.row_bytes(), f.page_bytes);
        return;
    }
    size_t n_scales = 0;  // scales to keep
    if (f.side == Side::keys) {
        const int group = (first + f.group - 1) / f.group;
        clear(f.scales_offset / kPageTokens * group * f.group, f.scales_offset);
        n_scales = scale_offset(f, group, 0);
    } else {
        const int whole = (first + kValueBlockTokens - 1) / kValueBlockTokens * kValueBlockTokens;
        for (int t = first; t < whole; ++t) {
            for (int c = 0; c < f.head_size; ++c) {
                set_value(f, page, t, c, 0);
            }
        }
        clear(f.scales_offset / kPageTokens * whole, f.scales_offset);
        n_scales = scale_offset(f, first, 0);
    }
    const bool pairs = f.scale_kind == ScaleKind::half_pair;
    const bool zeros = f.scale_kind == ScaleKind::byte_pair;
    clear(f.scales_offset + n_scales * (pairs ? 4 : 1), zeros ? f.zeros_offset : f.page_bytes);
    if (zeros) {
        clear(f.zeros_offset + n_scales, f.page_bytes);
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
        const WeightType type = f.type == LK_CACHE_F32    ? WeightType::F32
                                : f.type == LK_CACHE_BF16 ? WeightType::BF16
                                                          : WeightType::F16;
        lk::dequantize_row(type, page + static_cast<size_t>(token) * f.row_bytes(), out, f.head_size);
        return;
    }
    if (f.blocks()) {
        decode_blocks(f.type, page + static_cast<size_t>(token) * f.row_bytes(), out, f.head_size);
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
            out[c] = s * value_level(get_value(f, page, token, c), f.bits);
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
        out[c] = s * static_cast<float>(get_value(f, page, token, c)) + m;
    }
}

}  // namespace lk::kv
