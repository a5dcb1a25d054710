// Helpers shared by quantizer.cpp, quantize_keys.cpp and head_table.cpp.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/scalar_codec.h"

namespace lk::kv {

struct Range {
    float min;
    float max;
};

// Range of n values at distance `stride`.
inline Range range_of(const float* x, int n, int stride) {
    Range r{x[0], x[0]};
    for (int i = 0; i < n; ++i) {
        const float v = x[static_cast<ptrdiff_t>(i) * stride];
        r.min = std::min(r.min, v);
        r.max = std::max(r.max, v);
    }
    return r;
}

inline half_t load_half(const uint8_t* p) {
    half_t h;
    std::memcpy(&h, p, sizeof h);
    return h;
}

inline void store_half(uint8_t* p, half_t h) {
    std::memcpy(p, &h, sizeof h);
}

// Index of a scale: [group, channel] for keys, [token, channel group] for values.
inline size_t scale_offset(const PageFormat& f, int outer, int inner) {
    const int width = f.side == Side::keys ? f.head_size : f.scale_groups;
    return static_cast<size_t>(outer) * width + inner;
}

using ChannelMask = std::bitset<kMaxHeadSize>;

inline int channel_levels(const PageFormat& f, const ChannelMask& is_refined, int channel) {
    return code_levels(f.bits, f.refined_keys() && is_refined[channel]);
}

inline ChannelMask refined_mask(const HeadTable& table) {
    ChannelMask mask;
    for (const uint16_t c : table.refined) {
        mask[c] = true;
    }
    return mask;
}

// Quantizes the f.group rows of keys from `token` on, of which the first `sinks` have codes of 0.
void quantize_keys(const PageFormat& f, const HeadTable& table, const float* rows, int token, int sinks, uint8_t* page);

// One value row of kivi2 or kivi3: centred and rotated elements, codes and scale.
struct RotatedValue {
    float w[kMaxHeadSize];
    uint8_t codes[kMaxHeadSize];
    float scale;

    RotatedValue(const PageFormat& f, const float* row, const std::vector<half_t>& mu) : scale(0) {
        const int head_size = f.head_size;
        double square = 0;
        for (int c = 0; c < head_size; ++c) {
            w[c] = row[c] - half_to_float(mu[c]);
        }
        hadamard(w, head_size);
        for (int c = 0; c < head_size; ++c) {
            square += static_cast<double>(w[c]) * w[c];
        }
        const float step = value_step(square / head_size, f.bits);
        double along = 0;         // <w, levels>
        double level_square = 0;  // <levels, levels>
        for (int c = 0; c < head_size; ++c) {
            const int code = value_code(w[c], step, f.bits);
            const double level = value_level(code, f.bits);
            codes[c] = static_cast<uint8_t>(code);
            along += w[c] * level;
            level_square += level * level;
        }
        scale = halfway_scale(square, along, level_square);
    }
};

}  // namespace lk::kv
