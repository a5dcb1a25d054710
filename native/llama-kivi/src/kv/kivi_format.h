// Page formats of the KV cache: bit order, group and page sizes, offsets of scales. No other file defines any of these.
//
// A page holds 128 tokens of one layer, one KV head and one side (keys or values):
//
//   f16            half[128][D]
//   q8_0, q4_0     [128][D/32] ggml blocks; each row is first rotated by a Hadamard transform, as in llama.cpp
//   keys           codes[128/T tiles][rows/4 quads][T*4*b/8 bytes], then scales[128/G groups][D]
//                  rows = D; kivi2 has one more per refined channel, its low two bits
//   values         codes[8 blocks of 16 tokens][D/8 blocks of 8 channels][16*8*b/8 bytes],
//                  then scales[128 tokens][channel groups]
//
// T = min(G, 32) tokens. Scales: *-paper has (half scale, half min) pairs; kivi2 and kivi4 have a plane of byte scales,
// then a plane of int8 zero points (kivi2 values: one byte scale per token, no zero point).
//
// A row of a q8_0 ring: blocks of 32 channels, each a half scale and one int8 code per channel; the last block has the
// rest of the channels.
//
// Code i of the n codes of a quad (keys) or block (values) is in byte i % (n*b/8) at bit b * (i / (n*b/8)): one load,
// masked at each bit position, gives n codes in order. The order suits dot products of 4-byte groups (dp4a, vpdpbusd):
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

// Keys and values have separate formats.
enum class Side { keys, values };

enum class ScaleKind {
    none,        // f16 pages
    block,       // q8_0, q4_0: one half per block of 32 codes
    half_pair,   // half scale, half min: x = code * scale + min
    byte_pair,   // byte scale s, int8 zero point z: x = s * (code + z/4)
    byte_token,  // one byte scale per token, for centred, rotated x = s * (code - 3/2)
};

// How byte scales of keys are rounded.
enum class KeyScale {
    cover,    // up: every key of the group is within the codes
    nearest,  // codes are clamped; up to 3% of a range is cut
};

// The scale of a token's values (kivi2), from w, the centred and rotated elements, and l, their levels.
enum class ValueScale {
    unbiased,  // <w,w> / <w,l>
    halfway,   // mean of the unbiased and the least-squares scale, <w,l> / <l,l>
};

// Type of the rows in the residual ring.
enum class RowType { f16, q8_0 };

constexpr size_t row_bytes(RowType type, int head_size) {
    constexpr int kBlockChannels = 32;
    constexpr int kScaleBytes = 2;
    return type == RowType::f16 ? static_cast<size_t>(head_size) * 2
                                : head_size + (head_size + kBlockChannels - 1) / kBlockChannels * kScaleBytes;
}
static_assert(row_bytes(RowType::q8_0, 128) == 136 && row_bytes(RowType::q8_0, 80) == 86);

// What a type does beyond its name, as data: own_recipe has the defaults, make_recipe (kv/config.h) applies the cache
// parameters. Fields that a type does not use keep the first edition's values.
struct Recipe {
    int edition;             // 1 or 2; 1 for types with one recipe
    int group;               // G: tokens per key group, channels per value group
    int refined_eighths;     // key channels with twice the bits, in eighths of the head (kivi2)
    KeyScale key_scale;      // kivi2, kivi4
    ValueScale value_scale;  // kivi2
    bool score_correction;   // attention subtracts the effect of the keys' quantization noise on the softmax
    RowType ring;            // kivi2, kivi4
    bool key_centre;         // keys are stored minus a centre per channel; no recipe does so yet
};

// Page format of one side; type, head size and recipe determine it.
struct PageFormat {
    lk_cache_type type;
    Side side;
    Recipe recipe;
    int head_size;         // D
    int group;             // G: tokens per key group, channels per value group
    int bits;              // b; 16 for f16
    ScaleKind scale_kind;  //
    int rows;              // keys: code rows (D plus the refined channels of kivi2); values: D
    int tile_tokens;       // keys: T
    int scale_groups;      // keys: token groups per page; values: channel groups per token
    size_t scales_offset;  // bytes from the start of the page to the scales
    size_t zeros_offset;   // the same to the zero points (byte_pair)
    size_t page_bytes;

    constexpr bool quantized() const { return bits != 16; }
    constexpr bool blocks() const { return scale_kind == ScaleKind::block; }
    // Bytes per token (f16, q8_0, q4_0).
    constexpr size_t row_bytes() const { return page_bytes / kPageTokens; }
    constexpr bool refined_keys() const { return rows > head_size; }
    // Scales included.
    constexpr double bits_per_element() const {
        return 8.0 * static_cast<double>(page_bytes) / (kPageTokens * head_size);
    }
    // Keys: code bytes of one quad, i.e. four rows in one tile.
    constexpr int quad_bytes() const { return tile_tokens * 4 * bits / 8; }
    // Values: code bytes of one block of 16 tokens by 8 channels.
    constexpr int block_bytes() const { return kValueBlockTokens * kValueBlockChannels * bits / 8; }
    // Values: code bytes of a unit, the blocks of 16 tokens.
    constexpr int unit_bytes() const { return kValueBlockTokens * head_size * bits / 8; }
};

// KIVI types keep the youngest rows in a residual ring and quantize in groups.
constexpr bool is_kivi(lk_cache_type type) {
    return type != LK_CACHE_F16 && type != LK_CACHE_Q8_0 && type != LK_CACHE_Q4_0;
}

constexpr bool is_paper(lk_cache_type type) {
    return type == LK_CACHE_KIVI2_PAPER || type == LK_CACHE_KIVI4_PAPER;
}

inline constexpr int kFirstEdition = 1;
inline constexpr int kSecondEdition = 2;
inline constexpr int kHeadEighths = 8;

// The recipe of a type without settings.
constexpr Recipe own_recipe(lk_cache_type type, int edition) {
    Recipe r{kFirstEdition, 32, 0, KeyScale::cover, ValueScale::unbiased, false, RowType::f16, false};
    if (!is_kivi(type) || is_paper(type)) {
        return r;
    }
    r.edition = edition;
    r.refined_eighths = type == LK_CACHE_KIVI2 ? 2 : 0;
    if (edition == kSecondEdition) {
        r.key_scale = KeyScale::nearest;
        r.value_scale = ValueScale::halfway;
        r.score_correction = true;
        r.ring = RowType::q8_0;
        r.group = 64;
        r.refined_eighths = type == LK_CACHE_KIVI2 ? 3 : 0;
    }
    return r;
}

// Channels with twice the bits. A multiple of 4: code rows come in quads.
constexpr int refined_channels(const Recipe& recipe, int head_size) {
    return head_size * recipe.refined_eighths / kHeadEighths / 4 * 4;
}

constexpr PageFormat make_page_format(lk_cache_type type, Side side, int head_size, const Recipe& recipe) {
    const int group = recipe.group;
    PageFormat f{};
    f.type = type;
    f.side = side;
    f.recipe = recipe;
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
    size_t scales = 0;  // per page
    if (side == Side::keys) {
        if (type == LK_CACHE_KIVI2) {
            f.rows += refined_channels(recipe, head_size);
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

// The first edition with another group size.
constexpr PageFormat make_page_format(lk_cache_type type, Side side, int head_size, int group) {
    Recipe recipe = own_recipe(type, kFirstEdition);
    recipe.group = group;
    return make_page_format(type, side, head_size, recipe);
}

namespace check {  // documented sizes at D = 128
constexpr size_t pair_bytes(lk_cache_type type, int edition = kFirstEdition) {
    return make_page_format(type, Side::keys, 128, own_recipe(type, edition)).page_bytes +
           make_page_format(type, Side::values, 128, own_recipe(type, edition)).page_bytes;
}
static_assert(pair_bytes(LK_CACHE_KIVI2) == 10368);
static_assert(pair_bytes(LK_CACHE_KIVI2, kSecondEdition) == 10368);  // 2.53 bits per element as well
static_assert(pair_bytes(LK_CACHE_KIVI4, kSecondEdition) == 17408);  // 4.25
static_assert(refined_channels(own_recipe(LK_CACHE_KIVI2, kSecondEdition), 80) == 28);
static_assert(pair_bytes(LK_CACHE_KIVI2_PAPER) == 12288);
static_assert(pair_bytes(LK_CACHE_F16) == 65536);
static_assert(make_page_format(LK_CACHE_Q8_0, Side::keys, 64, 32).bits_per_element() == 8.5);
static_assert(make_page_format(LK_CACHE_Q4_0, Side::values, 64, 32).bits_per_element() == 4.5);
static_assert(make_page_format(LK_CACHE_KIVI2, Side::keys, 64, 32).bits_per_element() == 3.0);
static_assert(make_page_format(LK_CACHE_KIVI2, Side::values, 64, 32).bits_per_element() == 2.125);
static_assert(make_page_format(LK_CACHE_KIVI4, Side::values, 64, 32).bits_per_element() == 4.5);
static_assert(make_page_format(LK_CACHE_KIVI4_PAPER, Side::keys, 64, 32).bits_per_element() == 5.0);
}  // namespace check

// Position of one code in a page.
struct CodePlace {
    size_t byte;
    int shift;
};

// Position of a token's code in a page of keys. row: channel, or D + i for the low bits of refined channel i.
inline CodePlace key_code_place(const PageFormat& f, int token, int row) {
    const int tile = token / f.tile_tokens;
    const int i = 4 * (token % f.tile_tokens) + row % 4;
    const int n = f.quad_bytes();
    const size_t quad = static_cast<size_t>(tile) * (f.rows / 4) + row / 4;
    return {quad * n + i % n, f.bits * (i / n)};
}

// Position of a token's code in a page of values.
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
