// Quantizes groups of keys, channel by channel in loops over the channels of a token.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/quantizer_groups.h"
#include "kv/codec/scalar_codec.h"

namespace lk::kv {

namespace {

// Scales and minima of a group's channels, as group_code takes them. A channel without a scale has the code 0.
struct GroupScales {
    float s[kMaxHeadSize];
    float m[kMaxHeadSize];
    float top[kMaxHeadSize];  // largest code

    void set(int c, float scale, float min, int levels) {
        s[c] = scale > 0 ? scale : 1.0f;
        m[c] = min;
        top[c] = scale > 0 ? static_cast<float>(levels - 1) : 0.0f;
    }
    // group_code of each channel.
    void codes(const float* row, int n, uint8_t* out) const {
        for (int c = 0; c < n; ++c) {
            out[c] =
                static_cast<uint8_t>(static_cast<int>(rounded_even(clamped((row[c] - m[c]) / s[c], 0.0f, top[c]))));
        }
    }
};

// Stores a token's code of every row, four rows at a time: they are four bytes of their quad.
void store_key_codes(const PageFormat& f, int token, const uint8_t* codes, uint8_t* page) {
    const CodePlace first = key_code_place(f, token, 0);
    const uint32_t mask = ((1u << f.bits) - 1) * 0x01010101u << first.shift;
    uint8_t* to = page + first.byte;
    for (int row = 0; row < f.rows; row += 4, to += f.quad_bytes()) {
        uint32_t four = 0;
        uint32_t word = 0;
        std::memcpy(&four, codes + row, sizeof four);
        std::memcpy(&word, to, sizeof word);
        word = (word & ~mask) | four << first.shift;
        std::memcpy(to, &word, sizeof word);
    }
}

// Chooses and stores the scales of a group whose channels range over [low, high].
void store_key_scales(const PageFormat& f, const HeadTable& table, const ChannelMask& refined, int group,
                      const float* low, const float* high, uint8_t* page, GroupScales& scales) {
    for (int c = 0; c < f.head_size; ++c) {
        const int levels = channel_levels(f, refined, c);
        const size_t at = scale_offset(f, group, c);
        if (f.scale_kind == ScaleKind::half_pair) {
            const HalfPair pair(low[c], high[c], levels);
            store_half(page + f.scales_offset + at * 4, pair.scale);
            store_half(page + f.scales_offset + at * 4 + 2, pair.min);
            scales.set(c, pair.s, pair.m, levels);
        } else {
            const BytePair pair(low[c], high[c], levels, table.exponent, true);
            page[f.scales_offset + at] = pair.scale;
            page[f.zeros_offset + at] = static_cast<uint8_t>(pair.zero);
            scales.set(c, pair.s, pair.m, levels);
        }
    }
}

}  // namespace

void quantize_keys(const PageFormat& f, const HeadTable& table, const float* rows, int token, int sinks,
                   uint8_t* page) {
    const int d = f.head_size;
    const ChannelMask refined = refined_mask(table);
    float low[kMaxHeadSize] = {};
    float high[kMaxHeadSize] = {};
    for (int t = sinks; t < f.group; ++t) {
        const float* const row = rows + static_cast<ptrdiff_t>(t) * d;
        if (t == sinks) {
            std::copy_n(row, d, low);
            std::copy_n(row, d, high);
        }
        for (int c = 0; c < d; ++c) {
            low[c] = smaller(low[c], row[c]);
            high[c] = larger(high[c], row[c]);
        }
    }
    GroupScales scales;
    store_key_scales(f, table, refined, token / f.group, low, high, page, scales);
    uint8_t codes[2 * kMaxHeadSize] = {};
    for (int t = 0; t < f.group; ++t) {
        if (t >= sinks) {
            scales.codes(rows + static_cast<ptrdiff_t>(t) * d, d, codes);
            for (size_t i = 0; i < table.refined.size() && f.refined_keys(); ++i) {
                uint8_t& code = codes[table.refined[i]];
                codes[d + i] = code & 3;
                code >>= 2;
            }
        }
        store_key_codes(f, token + t, codes, page);
    }
}

}  // namespace lk::kv
