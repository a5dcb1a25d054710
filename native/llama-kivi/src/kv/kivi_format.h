// The one owner of the KV cache's page formats: bit order, group and page sizes, and where scales lie.
//
// A page holds 128 token positions of one KV head of one layer, one side (keys or values):
//
//   f16            half[128][D]
//   q8_0, q4_0     [128][D/32] ggml blocks of the token's row rotated by a Hadamard transform, as llama.cpp caches them
//   keys           codes[128/T tiles][rows/4 quads][T*4*b/8 bytes], then scales[128/G groups][D]
//                  rows = D, and for kivi2 D/4 more: the low two bits of the refined channels
//   values         codes[8 blocks of 16 tokens][D/8 blocks of 8 channels][16*8*b/8 bytes], then scales[128 tokens][per
//   token]
//
// T = min(G, 32) tokens. Scales: *-paper (half scale, half min) pairs; kivi2/kivi4 a byte scale plane, then an int8
// zero point plane (kivi2 values: one byte scale per token, no zero point).
//
// Inside a quad (keys) or block (values) of n codes, code number i lies in byte i % (n*b/8) at bit b * (i / (n*b/8)):
// one load and a mask at each bit position give n codes in order. The order is what a dot product of byte quads wants:
//   keys    i = 4 * token_in_tile + row % 4                             (4 channels of a token side by side)
//   values  i = 32 * (token % 16 / 4) + 4 * (channel % 8) + token % 4   (4 tokens of a channel side by side)
#pragma once

#include <cstddef>
#include <cstdint>

#include "llama_kivi.h"

namespace lk::kv {

inline constexpr int kPageTokens = 128;
inline constexpr int kValueBlockTokens = 16;
inline constexpr int kValueBlockChannels = 8;
inline constexpr int kMaxHeadSize = 256;

// Which half of the cache a format is for.
enum class Side { keys, values };

// How scales are stored.
enum class ScaleKind {
    none,        // f16 pages
    block,       // q8_0, q4_0: a half in every block of 32 codes
    half_pair,   // half scale, half min: x = code * scale + min
    byte_pair,   // byte scale s, int8 zero point z: x = s * (code + z/4)
    byte_token,  // byte scale per token: rotated, centred x = s * (code - 3/2)
};

// Everything about one side's pages that the type, the head size and the group size determine.
struct PageFormat {
    lk_cache_type type;
    Side side;
    int head_size;         // D
    int group;             // G: tokens a key group, channels a value group
    int bits;              // b; 16 for f16
    ScaleKind scale_kind;  //
    int rows;              // keys: code rows (D + D/4 for kivi2); values: D
    int tile_tokens;       // keys: T
    int scale_groups;      // keys: token groups of a page; values: channel groups of a token
    size_t scales_offset;  // bytes from the page's start to the scales
    size_t zeros_offset;   // bytes to the zero points (byte_pair)
    size_t page_bytes;

    constexpr bool quantized() const { return bits != 16; }
    constexpr bool blocks() const { return scale_kind == ScaleKind::block; }
    // Bytes of a token's row (f16, q8_0, q4_0).
    constexpr size_t row_bytes() const { return page_bytes / kPageTokens; }
    constexpr bool refined_keys() const { return rows > head_size; }
    // Bits one element takes, scales included.
    constexpr double bits_per_element() const {
        return 8.0 * static_cast<double>(page_bytes) / (kPageTokens * head_size);
    }
    // Keys: bytes of the codes of one quad of rows in one tile.
    constexpr int quad_bytes() const { return tile_tokens * 4 * bits / 8; }
    // Values: bytes of the codes of one block of 16 tokens by 8 channels.
    constexpr int block_bytes() const { return kValueBlockTokens * kValueBlockChannels * bits / 8; }
};

// Types whose rows wait in a ring before they are quantized in groups.
constexpr bool is_kivi(lk_cache_type type) {
    return type != LK_CACHE_F16 && type != LK_CACHE_Q8_0 && type != LK_CACHE_Q4_0;
}

constexpr bool is_paper(lk_cache_type type) {
    return type == LK_CACHE_KIVI2_PAPER || type == LK_CACHE_KIVI4_PAPER;
}

constexpr PageFormat make_page_format(lk_cache_type type, Side side, int head_size, int group) {
    PageFormat f{};
    f.type = type;
    f.side = side;
    f.head_size = head_size;
    f.group = group;
    f.rows = head_size;
    f.tile_tokens = group < 32 ? group : 32;
    if (type == LK_CACHE_F16) {
        f.bits = 16;
        f.scale_kind = ScaleKind::none;
        f.page_bytes = static_cast<size_t>(kPageTokens) * head_size * 2;
        f.scales_offset = f.zeros_offset = f.page_bytes;
        return f;
    }
    if (!is_kivi(type)) {
        f.bits = type == LK_CACHE_Q8_0 ? 8 : 4;
        f.scale_kind = ScaleKind::block;
        f.page_bytes = static_cast<size_t>(kPageTokens) * (head_size / 32) * (2 + 32 * f.bits / 8);
        f.scales_offset = f.zeros_offset = f.page_bytes;
        return f;
    }
    const bool two_bits = type == LK_CACHE_KIVI2 || type == LK_CACHE_KIVI2_PAPER;
    f.bits = two_bits ? 2 : 4;
    size_t scales = 0;  // of one page
    if (side == Side::keys) {
        if (type == LK_CACHE_KIVI2) {
            f.rows += head_size / 4;
        }
        f.scale_groups = kPageTokens / group;
        f.scale_kind = is_paper(type) ? ScaleKind::half_pair : ScaleKind::byte_pair;
        scales = static_cast<size_t>(f.scale_groups) * head_size;
    } else {
        f.scale_groups = type == LK_CACHE_KIVI2 ? 1 : (head_size + group - 1) / group;
        f.scale_kind = is_paper(type)           ? ScaleKind::half_pair
                       : type == LK_CACHE_KIVI2 ? ScaleKind::byte_token
                                                : ScaleKind::byte_pair;
        scales = static_cast<size_t>(kPageTokens) * f.scale_groups;
    }
    f.scales_offset = static_cast<size_t>(kPageTokens) * f.rows * f.bits / 8;
    f.zeros_offset = f.scales_offset + scales;
    f.page_bytes = f.scales_offset + scales * (f.scale_kind == ScaleKind::half_pair   ? 4
                                               : f.scale_kind == ScaleKind::byte_pair ? 2
                                                                                      : 1);
    return f;
}

namespace check {  // D 128, G 32: the sizes the design promises
constexpr size_t pair_bytes(lk_cache_type type) {
    return make_page_format(type, Side::keys, 128, 32).page_bytes +
           make_page_format(type, Side::values, 128, 32).page_bytes;
}
static_assert(pair_bytes(LK_CACHE_KIVI2) == 10368);
static_assert(pair_bytes(LK_CACHE_KIVI2_PAPER) == 12288);
static_assert(pair_bytes(LK_CACHE_F16) == 65536);
static_assert(make_page_format(LK_CACHE_Q8_0, Side::keys, 64, 32).bits_per_element() == 8.5);
static_assert(make_page_format(LK_CACHE_Q4_0, Side::values, 64, 32).bits_per_element() == 4.5);
static_assert(make_page_format(LK_CACHE_KIVI2, Side::keys, 64, 32).bits_per_element() == 3.0);
static_assert(make_page_format(LK_CACHE_KIVI2, Side::values, 64, 32).bits_per_element() == 2.125);
static_assert(make_page_format(LK_CACHE_KIVI4, Side::values, 64, 32).bits_per_element() == 4.5);
static_assert(make_page_format(LK_CACHE_KIVI4_PAPER, Side::keys, 64, 32).bits_per_element() == 5.0);
}  // namespace check

// Where one code lies.
struct CodePlace {
    size_t byte;
    int shift;
};

// Code of row (a channel, or D + i for refined channel i) of a token in a page of keys.
inline CodePlace key_code_place(const PageFormat& f, int token, int row) {
    const int tile = token / f.tile_tokens;
    const int i = 4 * (token % f.tile_tokens) + row % 4;
    const int n = f.quad_bytes();
    const size_t quad = static_cast<size_t>(tile) * (f.rows / 4) + row / 4;
    return {quad * n + i % n, f.bits * (i / n)};
}

// Code of a channel of a token in a page of values.
inline CodePlace value_code_place(const PageFormat& f, int token, int channel) {
    const int i = 32 * (token % kValueBlockTokens / 4) + 4 * (channel % kValueBlockChannels) + token % 4;
    const int n = f.block_bytes();
    const size_t block = static_cast<size_t>(token / kValueBlockTokens) * (f.head_size / kValueBlockChannels) +
                         channel / kValueBlockChannels;
    return {block * n + i % n, f.bits * (i / n)};
}

inline int get_code(const uint8_t* page, CodePlace at, int bits) {
    return (page[at.byte] >> at.shift) & ((1 << bits) - 1);
}

inline void set_code(uint8_t* page, CodePlace at, int bits, int code) {
    const int mask = ((1 << bits) - 1) << at.shift;
    page[at.byte] = static_cast<uint8_t>((page[at.byte] & ~mask) | (code << at.shift));
}

}  // namespace lk::kv
