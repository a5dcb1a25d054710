// Quantizes centred, rotated values (kivi2, kivi3) with one warp and 64 channels of a row per lane: all butterflies but
// one are in registers. A warp has 32 parts of 64 channels: 16 rows of 128 channels, or 32 rows of 64.
//
//   1. load      ring blocks through shared memory, other rows from global memory -> halves -> floats, minus the centre
//   2. rotate    kv::hadamard, in its order
//   3. encode    scale, and a bit plane per bit of the codes: word [j] of a plane has channels [32 j, 32 j + 32) of the
//                lane; in floats if their errors cannot show, otherwise, about one warp in 65, in doubles
//   4. store     transposes planes across lanes into the words of a page, each 16 tokens of a channel
//
// Lane l has bits l of the words of the page: bit 8 * (token % 4) + 2 * (token % 16 / 4) + b, see
// kv/codec/kivi_format.h. Host and device code; see lanes.cuh.
#pragma once

#include "backend/cuda/append/head_rows.h"
#include "backend/cuda/append/value_codes.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

inline constexpr int kPartWords = 17;  // two blocks of a q8_0 ring
static_assert(kPartWords * 4 == 2 * kRingBlockBytes);

// Whether quantize_value_tile supports the format.
constexpr bool has_value_tiles(const kv::PageFormat& f) {
    return f.side == kv::Side::values && f.scale_kind == kv::ScaleKind::byte_token &&
           (f.head_size == 64 || f.head_size == 128);
}

// A tile of a page step: the tokens [token, token + 2048 / D) of the page, as far as the step has them.
struct ValueTile {
    int token;
    int first_token;  // of the step
    int first_row;    // of the step
    int n_rows;       // of the step
    int sinks;        // leading rows of the step that keep their codes
};

// A warp's shared memory.
struct ValueScratch {
    uint32_t words[32 * kPartWords];
};

template <int kHead, int kBits>
struct ValueQuantizer {
    static constexpr int kParts = kHead / kPartChannels;  // per row
    static constexpr int kRows = 32 / kParts;

    // Row of the tile that the lane has.
    LK_HD static int tile_row(int lane) {
        const int in_block = 4 * (lane >> 1 & 3) + (lane >> 3);
        return kParts == 1 ? (lane & 1) * kv::kValueBlockTokens + in_block : in_block;
    }

    template <class Threads>
    LK_HD static void load_blocks(const Threads& threads, const HeadRows& rows, int first, int count, int row, int part,
                                  ValueScratch& scratch, float (&w)[kPartChannels]) {
        constexpr int kRowWords = kParts * kPartWords;
        // The rows are consecutive in the ring, which may end among them.
        const int ring_words = rows.ring_rows * kRowWords;
        const int begin = static_cast<int>(rows.ring_row(first)) * kRowWords;
        const uint32_t* const ring = reinterpret_cast<const uint32_t*>(rows.blocks);
        constexpr int kStep = kParts;  // words per load: a row of 128 channels is aligned to 8 bytes
        const auto load_at = [&](int at) { return kStep == 2 ? load_two(ring + at) : Words2{ring[at], 0}; };
        const auto store_at = [&](int i, Words2 two) {
            scratch.words[i] = two.x;
            if constexpr (kStep == 2) {
                scratch.words[i + 1] = two.y;
            }
        };
        constexpr int kWords = kRows * kRowWords;
        const int first_word = threads.lane() * kStep;
        if (count == kRows && begin + kWords <= ring_words) {
            constexpr int kLoads = (kWords + 32 * kStep - 1) / (32 * kStep);
            Words2 loaded[kLoads] = {};  // all of them before the first is stored: their latencies overlap
            LK_UNROLL
            for (int j = 0; j < kLoads; ++j) {
                if (first_word + 32 * kStep * j < kWords) {
                    loaded[j] = load_at(begin + first_word + 32 * kStep * j);
                }
            }
            LK_UNROLL
            for (int j = 0; j < kLoads; ++j) {
                if (first_word + 32 * kStep * j < kWords) {
                    store_at(first_word + 32 * kStep * j, loaded[j]);
                }
            }
        } else {
            for (int i = first_word; i < count * kRowWords; i += 32 * kStep) {
                store_at(i, load_at(begin + i < ring_words ? begin + i : begin + i - ring_words));
            }
        }
        threads.sync_warp();
        const uint32_t* const own = scratch.words + (row - first) * kRowWords + part * kPartWords;
        uint32_t q[kPartWords];
        LK_UNROLL
        for (int i = 0; i < kPartWords; ++i) {
            q[i] = own[i];
        }
        // The first block has its scale in the low half of word 0, the second one in the high half of word 8.
        const uint32_t scales[2] = {select_bytes(q[0], 0, 0x1010), select_bytes(q[8], 0, 0x3232)};
        LK_UNROLL
        for (int i = 0; i < kPartWords; ++i) {
            q[i] ^= kSignBits;
        }
        LK_UNROLL
        for (int pair = 0; pair < kPartChannels / 2; ++pair) {
            const int block = pair / 16;
            const int byte = block * kRingBlockBytes + 2 + pair % 16 * 2;
            const uint32_t x = ring_halves(q[byte / 4], byte % 4, scales[block]);
            w[2 * pair] = low_half(x);
            w[2 * pair + 1] = high_half(x);
        }
    }

    // A row in any memory.
    LK_HD static void load_row(const HeadRows& rows, int row, int part, float (&w)[kPartChannels]) {
        const auto load_all = [&](const auto& four) {
            LK_UNROLL
            for (int c = 0; c < kPartChannels; c += 4) {
                const Words2 x = four(c);
                w[c] = low_half(x.x);
                w[c + 1] = high_half(x.x);
                w[c + 2] = low_half(x.y);
                w[c + 3] = high_half(x.y);
            }
        };
        const int first = part * kPartChannels;
        if (rows.in_blocks(row)) {
            const uint8_t* const block = rows.block(row, first);
            load_all([&](int c) { return HeadRows::four_of_block(block + c / 32 * kRingBlockBytes, c % 32); });
        } else {
            const uint16_t* const from = rows.row(row) + first;
            load_all([&](int c) { return load_two(from + c); });
        }
    }

    template <class Threads>
    LK_HD static void subtract_centre(const Threads& threads, const uint32_t* mu, int part, float (&w)[kPartChannels]) {
        bool centred = false;
        for (int i = threads.lane(); i < kHead / 2; i += 32) {
            centred = centred || (mu[i] & 0x7fff7fffu) != 0;
        }
        if (threads.vote(centred) == 0) {
            return;
        }
        LK_UNROLL
        for (int pair = 0; pair < kPartChannels / 2; ++pair) {
            const uint32_t x = mu[part * (kPartChannels / 2) + pair];
            w[2 * pair] -= low_half(x);
            w[2 * pair + 1] -= high_half(x);
        }
    }

    template <class Threads>
    LK_HD static void rotate(const Threads& threads, int part, float (&w)[kPartChannels]) {
        LK_UNROLL
        for (int half = 1; half < kPartChannels; half *= 2) {
            LK_UNROLL
            for (int c = 0; c < kPartChannels; ++c) {
                if (!(c & half)) {
                    const float u = w[c];
                    const float v = w[c + half];
                    w[c] = u + v;
                    w[c + half] = u - v;
                }
            }
        }
        const float norm = 1.0f / sqrtf(static_cast<float>(kHead));
        const float sign = part == 0 ? 1.0f : -1.0f;
        LK_UNROLL
        for (int c = 0; c < kPartChannels; ++c) {
            if constexpr (kParts == 2) {
                w[c] = fused(w[c], sign, threads.exchange(w[c], 1));
            }
            w[c] = fused(w[c], norm, 0.0f);  // also turns -0 into 0, so that the sign bit tells w < 0
        }
    }

    // Bit l of lane r -> bit r of lane l: exchanges blocks of 16, 8, 4, 2 and 1 bits off the diagonal.
    template <class Threads>
    LK_HD static uint32_t transposed(const Threads& threads, uint32_t x) {
        const int lane = threads.lane();
        x = select_bytes(x, threads.exchange(x, 16), lane & 16 ? 0x3276u : 0x5410u);
        x = select_bytes(x, threads.exchange(x, 8), lane & 8 ? 0x3715u : 0x6240u);
        constexpr uint32_t kLow[] = {0x55555555u, 0x33333333u, 0x0f0f0f0fu};
        LK_UNROLL
        for (int i = 2; i >= 0; --i) {
            const int m = 1 << i;
            const uint32_t other = rotated_left(threads.exchange(x, m), lane & m ? 32 - m : m);
            const uint32_t keep = lane & m ? ~kLow[i] : kLow[i];
            x = (x & keep) | (other & ~keep);
        }
        return x;
    }

    // Stores a word of the page except the codes of other tokens.
    LK_HD static void store(uint32_t word, uint32_t mask, uint32_t* out) {
        if (mask == ~0u) {
            *out = word;
        } else if (mask != 0) {
            *out = (*out & ~mask) | (word & mask);
        }
    }

    // Of a plane for each value of lane % 2: [plane of the lane][part], the part of lane % 2 = 0 first.
    template <class Threads>
    LK_HD static void exchange_planes(const Threads& threads, uint32_t of_even, uint32_t of_odd, uint32_t (&out)[2]) {
        const bool odd = (threads.lane() & 1) != 0;
        const uint32_t own = odd ? of_odd : of_even;
        const uint32_t got = threads.exchange(odd ? of_even : of_odd, 1);
        out[0] = odd ? got : own;
        out[1] = odd ? own : got;
    }

    template <class Threads>
    LK_HD static void store_codes(const Threads& threads, const ValueTile& tile, bool valid, uint32_t (&low)[2][2],
                                  uint32_t (&high)[2], uint8_t* page) {
        constexpr int kRowBlocks = kHead / kv::kValueBlockChannels;
        constexpr int kBlockWords = 4 * kBits;
        const int lane = threads.lane();
        const uint32_t votes = threads.vote(valid);
        uint32_t masks[2] = {votes, votes};  // by lane % 2 of the lane that had the channels
        if constexpr (kParts == 1) {
            const uint32_t even = votes & 0x55555555u;
            const uint32_t odd = votes & ~0x55555555u;
            masks[0] = even | even << 1;
            masks[1] = odd | odd >> 1;
        }
        uint32_t* const words = reinterpret_cast<uint32_t*>(page);
        // Blocks of the tokens and channels of lanes with lane % 2 == p.
        const auto blocks_of = [&](int p) {
            const int token_block = tile.token / kv::kValueBlockTokens + (kParts == 1 ? p : 0);
            const int part = kParts == 1 ? 0 : p;
            return words + (token_block * kRowBlocks + part * (kPartChannels / kv::kValueBlockChannels)) * kBlockWords;
        };
        LK_UNROLL
        for (int j = 0; j < 2; ++j) {
            uint32_t x[2];
            exchange_planes(threads, low[0][j], low[1][j], x);
            LK_UNROLL
            for (int p = 0; p < 2; ++p) {
                const uint32_t word = transposed(threads, x[p]);
                store(word, masks[p], blocks_of(p) + (4 * j + lane / 8) * kBlockWords + lane % 8);
            }
        }
        if constexpr (kBits == 3) {
            uint32_t x[2];
            exchange_planes(threads, high[0], high[1], x);
            LK_UNROLL
            for (int p = 0; p < 2; ++p) {
                const uint32_t word = transposed(threads, x[p]);
                store(word, masks[p], blocks_of(p) + lane / 4 * kBlockWords + 8 + lane % 4);
            }
        }
    }

    template <class Threads>
    LK_HD static void quantize(const Threads& threads, const kv::PageFormat& f, const HeadRows& rows,
                               const ValueTile& tile, const uint8_t* table, ValueScratch& scratch, uint8_t* page) {
        const int lane = threads.lane();
        const int part = kParts == 1 ? 0 : lane & 1;
        const int token = tile.token + tile_row(lane);
        const int begin = tile.token > tile.first_token ? tile.token - tile.first_token : 0;  // rows of the step
        const int last = tile.token + kRows - tile.first_token;
        const int end = last < tile.n_rows ? last : tile.n_rows;
        const int own = token - tile.first_token;
        const bool valid = own >= begin && own < end && own >= tile.sinks;
        const int row = tile.first_row + (own < begin ? begin : own < end ? own : end - 1);
        float w[kPartChannels];
        if (rows.in_blocks(tile.first_row + end - 1)) {  // then the rows before it are, too
            load_blocks(threads, rows, tile.first_row + begin, end - begin, row, part, scratch, w);
        } else {
            load_row(rows, row, part, w);
        }
        subtract_centre(threads, reinterpret_cast<const uint32_t*>(table + 4), part, w);
        rotate(threads, part, w);
        uint32_t low[2][2] = {};
        uint32_t high[2] = {};
        const uint8_t scale =
            ValueEncoder<kHead, kBits>::encode(threads, part, *reinterpret_cast<const int*>(table), w, low, high);
        if (valid && part == 0) {
            page[f.scales_offset + token] = scale;
        }
        store_codes(threads, tile, valid, low, high, page);
    }
};

}  // namespace lk::cuda
