// Quantizes a group of keys (kivi2, kivi3, kivi4). A warp has a tile of T tokens and up to 128 channels, a lane four
// channels, which are one quad of the page; the tiles of a group share the ranges of its channels.
//
//   1. load     rows -> halves in registers; sinks become NaN, which ranges ignore
//   2. range    of each channel over the lane's tokens, then over the tiles
//   3. scales   a channel per thread
//   4. codes    four channels of a token at a time, packed into the words of the quad
//   5. store    words of the quad; low bits of refined channels through shared memory
//
// Host and device code; see lanes.cuh.
#pragma once

#include "backend/cuda/append/head_rows.h"
#include "backend/cuda/append/key_scale.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

inline constexpr int kQuad = 4;
inline constexpr int kWarpQuads = 32;
inline constexpr uint32_t kNanHalves = 0x7fff7fffu;
inline constexpr float kIntegerFloat = 0x1.8p23f;  // plus this, a float rounds to an integer, in its low bits

// Whether KeyQuantizer supports the format.
constexpr bool has_key_tiles(const kv::PageFormat& f) {
    return f.side == kv::Side::keys && f.scale_kind == kv::ScaleKind::byte_pair && f.head_size % kQuad == 0 &&
           f.head_size <= 2 * kQuad * kWarpQuads && (f.tile_tokens == 32 || f.tile_tokens == 16) &&
           (f.bits == 2 || (f.bits == 4 && !f.refined_keys()));
}

// Warps and shared memory of a group.
struct KeyBlock {
    int tiles;
    int chunks;     // of 128 channels
    int low_words;  // per tile: the low bits of refined channels

    LK_HD explicit KeyBlock(const kv::PageFormat& f)
        : tiles(f.group / f.tile_tokens),
          chunks((f.head_size / kQuad + kWarpQuads - 1) / kWarpQuads),
          low_words((f.rows - f.head_size) / kQuad * (f.tile_tokens * f.bits / 8)) {}
    LK_HD int threads() const { return tiles * chunks * 32; }
    LK_HD int shared_bytes(const kv::PageFormat& f) const {
        return f.head_size * static_cast<int>(sizeof(float) * 3 + sizeof(int)) +
               (1 + tiles * (f.head_size + low_words)) * static_cast<int>(sizeof(uint32_t));
    }
};

// The first row of a group, its first token in the page, and its leading sinks.
struct KeyGroup {
    int first_row;
    int token;
    int sinks;
};

// kHead: D, if it is known to the compiler, otherwise 0.
template <int kBits, int kTokens, int kHead>
struct KeyQuantizer {
    static constexpr int kPerWord = 8 / kBits;
    static constexpr int kWords = kTokens / kPerWord;  // per quad

    struct Shared {
        float* s;        // [D]
        float* m;        // [D]
        float* inverse;  // [D]: of s, or 0
        int* place;      // [D]: index of a refined channel, otherwise -1
        int* below;  // whether an element is below the zero point of its channel: its scale exceeds the largest byte
        uint32_t* least;  // [tile, D/2] pairs of halves
        uint32_t* most;
        uint32_t* low;  // [tile, low_words]

        LK_HD Shared(const kv::PageFormat& f, const KeyBlock& block, uint8_t* memory)
            : s(reinterpret_cast<float*>(memory)),
              m(s + f.head_size),
              inverse(m + f.head_size),
              place(reinterpret_cast<int*>(inverse + f.head_size)),
              below(place + f.head_size),
              least(reinterpret_cast<uint32_t*>(below + 1)),
              most(least + block.tiles * (f.head_size / 2)),
              low(most + block.tiles * (f.head_size / 2)) {}
    };

    // x: pairs of halves, [token][pair of channels].
    LK_HD static void load(const HeadRows& rows, int first, int channel, uint32_t (&x)[kTokens][2]) {
        const auto load_all = [&](const auto& four) {
            LK_UNROLL
            for (int t = 0; t < kTokens; ++t) {
                const Words2 words = four(t);
                x[t][0] = words.x;
                x[t][1] = words.y;
            }
        };
        const int last = first + kTokens - 1;
        if (rows.in_blocks(last) && rows.ring_row(last) >= static_cast<size_t>(kTokens - 1)) {  // consecutive
            constexpr size_t kBytes = kv::row_bytes(kv::RowType::q8_0, kHead);
            const size_t row_bytes = kHead > 0 ? kBytes : static_cast<size_t>(rows.row_bytes);
            const uint8_t* const block = rows.block(first, channel);
            load_all([&](int t) { return HeadRows::four_of_block(block + t * row_bytes, channel % 32); });
        } else if (first >= rows.n_ring) {
            const uint16_t* const row = rows.row(first) + channel;
            load_all([&](int t) { return load_two(row + static_cast<size_t>(t) * rows.staged_width); });
        } else {
            load_all([&](int t) { return rows.four(first + t, channel); });
        }
    }

    // Scales of the group's channels, a channel per thread.
    template <class Threads>
    LK_HD static void choose_scales(const Threads& threads, const kv::PageFormat& f, const KeyBlock& block,
                                    const KeyGroup& group, int k, const Shared& shared, uint8_t* page) {
        const int d = f.head_size;
        for (int c = threads.thread(); c < d; c += threads.threads()) {
            float low = kv::half_value(reinterpret_cast<const uint16_t*>(shared.least)[c]);
            float high = kv::half_value(reinterpret_cast<const uint16_t*>(shared.most)[c]);
            for (int tile = 1; tile < block.tiles; ++tile) {
                low = fminf(low, kv::half_value(reinterpret_cast<const uint16_t*>(shared.least)[tile * d + c]));
                high = fmaxf(high, kv::half_value(reinterpret_cast<const uint16_t*>(shared.most)[tile * d + c]));
            }
            if (group.sinks >= f.group) {
                low = high = 0;
            }
            const KeyScale own(low, high, kBits == 4 || shared.place[c] >= 0, k);
            const int at = group.token * f.scale_groups / kv::kPageTokens * d + c;
            page[f.scales_offset + at] = own.scale;
            page[f.zeros_offset + at] = own.zero;
            shared.s[c] = own.s;
            shared.m[c] = own.m;
            shared.inverse[c] = own.inverse;
            if (low < own.m) {
                *shared.below = 1;
            }
        }
    }

    // The code of an element of a channel in the low bits of a float's. kAny: x may be NaN, whose code is 0, or below
    // m.
    template <bool kAny>
    LK_HD static uint32_t code(float x, float s, float m, float inverse, float top) {
        const float q = divided(x - m, s, inverse);
        return kv::float_bits(fminf(kAny ? fmaxf(q, 0.0f) : q, top) + kIntegerFloat);
    }

    // Low bytes of four words.
    LK_HD static uint32_t low_bytes(const uint32_t (&x)[kQuad]) {
        return select_bytes(select_bytes(x[0], x[1], 0x0040), select_bytes(x[2], x[3], 0x0040), 0x5410);
    }

    template <bool kAny>
    LK_HD static void store_codes(const kv::PageFormat& f, const KeyBlock& block, int tile, int quad, bool active,
                                  const uint32_t (&x)[kTokens][2], const KeyGroup& group, const Shared& shared,
                                  uint8_t* page) {
        float s[kQuad];
        float m[kQuad];
        float inverse[kQuad];
        float top[kQuad];
        uint8_t* low[kQuad];   // bytes of the low bits of refined channels, otherwise null
        uint32_t refined = 0;  // bytes of refined channels
        LK_UNROLL
        for (int i = 0; i < kQuad; ++i) {
            s[i] = shared.s[kQuad * quad + i];
            m[i] = shared.m[kQuad * quad + i];
            inverse[i] = shared.inverse[kQuad * quad + i];
            const int place = shared.place[kQuad * quad + i];
            const unsigned at = static_cast<unsigned>(place);
            low[i] = place < 0 ? nullptr
                               : reinterpret_cast<uint8_t*>(shared.low + tile * block.low_words) +
                                     at / kQuad * kWords * kQuad + at % kQuad;
            refined |= place < 0 ? 0 : 0xffu << (8 * i);
            // Without a scale, all codes are 0.
            top[i] = s[i] > 0 ? static_cast<float>(kv::code_levels(kBits, place >= 0) - 1) : 0.0f;
        }
        const auto code_of = [&](int t, int i) {
            const uint32_t pair = x[t][i / 2];
            return code<kAny>(i % 2 == 0 ? low_half(pair) : high_half(pair), s[i], m[i], inverse[i], top[i]);
        };
        uint32_t words[kWords];
        LK_UNROLL
        for (int w = 0; w < kWords; ++w) {
            if constexpr (kBits == 4) {
                uint32_t both[kQuad];
                LK_UNROLL
                for (int i = 0; i < kQuad; ++i) {
                    both[i] = code_of(w, i) + (code_of(w + kWords, i) << 4);
                }
                words[w] = low_bytes(both);
            } else {
                // Nibbles of tokens 0 and 2, of tokens 1 and 3: up to four bits of a code.
                uint32_t even[kQuad];
                uint32_t odd[kQuad];
                LK_UNROLL
                for (int i = 0; i < kQuad; ++i) {
                    even[i] = code_of(w, i) + (code_of(w + 2 * kWords, i) << 4);
                    odd[i] = code_of(w + kWords, i) + (code_of(w + 3 * kWords, i) << 4);
                }
                const uint32_t e = low_bytes(even);
                const uint32_t o = low_bytes(odd);
                const uint32_t two = (e & 0x33333333u) | (o << 2 & 0xccccccccu);  // the low two bits of four tokens
                const uint32_t upper = (e >> 2 & 0x33333333u) | (o & 0xccccccccu);
                words[w] = (upper & refined) | (two & ~refined);
                LK_UNROLL
                for (int i = 0; i < kQuad; ++i) {
                    if ((refined >> (8 * i) & 1) != 0) {
                        low[i][kQuad * w] = static_cast<uint8_t>(two >> (8 * i));
                    }
                }
            }
        }
        uint32_t* const codes =
            reinterpret_cast<uint32_t*>(page) + (group.token / kTokens + tile) * (f.rows / kQuad) * kWords;
        if (active) {
            LK_UNROLL
            for (int w = 0; w < kWords; w += 4) {
                store_four(codes + quad * kWords + w, words[w], words[w + 1], words[w + 2], words[w + 3]);
            }
        }
    }

    // One thread block. memory: KeyBlock::shared_bytes.
    template <class Threads>
    LK_HD static void quantize(const Threads& threads, const kv::PageFormat& f, const HeadRows& rows,
                               const KeyGroup& group, const uint8_t* table, uint8_t* memory, uint8_t* page) {
        const KeyBlock block(f);
        const Shared shared(f, block, memory);
        const int d = kHead > 0 ? kHead : f.head_size;
        const int warp = threads.thread() / 32;
        const int tile = warp & (block.tiles - 1);
        const int chunk = warp < block.tiles ? 0 : 1;
        const int own = chunk * kWarpQuads + threads.lane();
        const bool active = own < d / kQuad;
        const int quad = active ? own : d / kQuad - 1;
        for (int c = threads.thread(); c < d; c += threads.threads()) {
            shared.place[c] = -1;
        }
        if (threads.thread() == 0) {
            *shared.below = 0;
        }
        uint32_t x[kTokens][2];
        load(rows, group.first_row + tile * kTokens, kQuad * quad, x);
        if (group.sinks > tile * kTokens) {
            LK_UNROLL
            for (int t = 0; t < kTokens; ++t) {
                if (tile * kTokens + t < group.sinks) {
                    x[t][0] = x[t][1] = kNanHalves;
                }
            }
        }
        LK_UNROLL
        for (int i = 0; i < 2; ++i) {
            uint32_t least = x[0][i];
            uint32_t most = x[0][i];
            LK_UNROLL
            for (int t = 1; t < kTokens; ++t) {
                least = smaller_halves(least, x[t][i]);
                most = larger_halves(most, x[t][i]);
            }
            if (active) {
                shared.least[tile * (d / 2) + 2 * quad + i] = least;
                shared.most[tile * (d / 2) + 2 * quad + i] = most;
            }
        }
        threads.sync_block();
        const uint16_t* const refined = reinterpret_cast<const uint16_t*>(table + 4);
        for (int i = threads.thread(); i < f.rows - d; i += threads.threads()) {
            shared.place[refined[i]] = i;
        }
        threads.sync_block();
        choose_scales(threads, f, block, group, *reinterpret_cast<const int*>(table), shared, page);
        threads.sync_block();
        if (group.sinks > tile * kTokens || *shared.below != 0) {
            store_codes<true>(f, block, tile, quad, active, x, group, shared, page);
        } else {
            store_codes<false>(f, block, tile, quad, active, x, group, shared, page);
        }
        if (block.low_words > 0) {
            threads.sync_block();
            uint32_t* const out = reinterpret_cast<uint32_t*>(page) +
                                  ((group.token / kTokens + tile) * (f.rows / kQuad) + d / kQuad) * kWords;
            for (int i = chunk * 32 + threads.lane(); i < block.low_words; i += block.chunks * 32) {
                out[i] = shared.low[tile * block.low_words + i];
            }
        }
    }
};

}  // namespace lk::cuda
