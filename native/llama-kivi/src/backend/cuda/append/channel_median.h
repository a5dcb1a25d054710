// The median of a channel's halves with one warp, a few rows per lane. Host and device code; see lanes.cuh.
#pragma once

#include <cstdint>

#include "backend/cuda/append/half_words.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

inline constexpr int kMedianRows = 8 * 32;  // most rows: eight per lane

// Maps a half to an unsigned key of the same order, and back.
LK_HD inline uint32_t ordered_key(uint16_t half) {
    return half & 0x8000u ? 0xffffu & ~static_cast<uint32_t>(half) : half | 0x8000u;
}
LK_HD inline float key_value(uint32_t key) {
    return kv::half_value(static_cast<half_t>(key & 0x8000u ? key & 0x7fffu : ~key));
}

// half(i): row i of the channel, i < n. Determines, bit by bit, the key that n / 2 rows are below.
template <class Threads, class Half>
LK_HD float channel_median(const Threads& threads, int n, const Half& half) {
    constexpr uint32_t kNone = 0x10000;  // above all keys
    uint32_t keys[kMedianRows / 32];
    LK_UNROLL
    for (int j = 0; j < kMedianRows / 32; ++j) {
        const int i = threads.lane() + 32 * j;
        keys[j] = i < n ? ordered_key(half(i)) : kNone;
    }
    const auto below = [&](uint32_t limit) {
        uint32_t count = 0;
        LK_UNROLL
        for (int j = 0; j < kMedianRows / 32; ++j) {
            count += keys[j] < limit ? 1 : 0;
        }
        return static_cast<int>(threads.sum(count));
    };
    const int rank = n / 2;
    uint32_t upper = 0;
    for (int bit = 15; bit >= 0; --bit) {
        const uint32_t trial = upper | 1u << bit;
        upper = below(trial) <= rank ? trial : upper;
    }
    if (n % 2 == 1) {
        return key_value(upper);
    }
    // The row of rank n / 2 - 1: the greatest smaller key, unless several rows have this one.
    uint32_t lower = 0;
    LK_UNROLL
    for (int j = 0; j < kMedianRows / 32; ++j) {
        lower = keys[j] < upper && keys[j] > lower ? keys[j] : lower;
    }
    lower = threads.largest(lower);
    return 0.5f * (key_value(below(upper) == rank ? lower : upper) + key_value(upper));
}

}  // namespace lk::cuda
