// Page formats of the KV cache: bit order, group and page sizes, offsets of scales. No other file defines any of these.
//
// A page holds 128 tokens of one layer, one KV head and one side (keys or values):
//
//   f32, f16, bf16 [128][D]
//   q8_0 to q4_0   [128][D/32] ggml blocks; each row is first rotated by a Hadamard transform, as in llama.cpp
//   keys           codes[128/T tiles][rows/4 quads][T*4*b/8 bytes], then scales[128/G groups][D]
//                  rows = D; kivi2 has one more per refined channel, its low two bits
//   values         codes[8 blocks of 16 tokens][D/8 blocks of 8 channels][16*8*b/8 bytes],
//                  then scales[128 tokens][channel groups]
//
// T = min(G, 32) tokens. Scales: *-paper has (half scale, half min) pairs; the others have a plane of byte scales,
// then a plane of int8 zero points (values of kivi2 and kivi3: one byte scale per token, no zero point).
//
// A row of a q8_0 ring: blocks of 32 channels, each a half scale and one int8 code per channel; the last block has the
// rest of the channels.
//
// Code i of the n codes of a quad (keys) or block (values) is in byte i % (n*b/8) at bit b * (i / (n*b/8)): one load,
// masked at each bit position, gives n codes in order. The order suits dot products of 4-byte groups (dp4a, vpdpbusd):
//   keys    i = 4 * token_in_tile + row % 4                             (4 channels of a token side by side)
//   values  i = 32 * (token % 16 / 4) + 4 * (channel % 8) + token % 4   (4 tokens of a channel side by side)
// A block of 3-bit values (kivi3) is a plane of the low two bits in this order, 32 bytes, and a plane of the high bit
// in the same order for b = 1, 16 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv/codec/cache_types.h"
#include "llama_kivi.h"

namespace lk::kv {

inline constexpr int kPageTokens = 128;
inline constexpr int kValueBlockTokens = 16;
inline constexpr int kValueBlockChannels = 8;
inline constexpr int kMaxHeadSize = 256;

// Keys and values have separate formats.
enum class Side { keys, values };

enum class ScaleKind {
    none,        // f32, f16 and bf16 pages
    block,       // ggml blocks: a half scale, and in some types a half minimum, per 32 codes
    half_pair,   // half scale, half min: x = code * scale + min
    byte_pair,   // byte scale s, int8 zero point z: x = s * (code + z/4)
    byte_token,  // one byte scale per token, for centred, rotated x = s * (code - (2^b - 1)/2)
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

// The settings of a type: own_recipe has the defaults, make_recipe (kv/config.h) applies the cache parameters.
struct Recipe {
    int group;            // G: tokens per key group, channels per value group
    int refined_eighths;  // key channels with twice the bits, in eighths of the head (kivi2, kivi3)
    RowType ring;         // f16 or q8_0; *-paper: always f16
    bool key_centre;      // keys are stored minus a centre per channel; no recipe does so yet
};

// Page format of one side; type, head size and recipe determine it.
struct PageFormat {
    lk_cache_type type;
    Side side;
    Recipe recipe;
    int head_size;          // D
    int group;              // G: tokens per key group, channels per value group
    int bits;               // b, without scales; 32 for f32, 16 for f16 and bf16
    ScaleKind scale_kind;   //
    bool score_correction;  // keys: attention subtracts the effect of their quantization noise on the softmax
    int rows;               // keys: code rows (D plus the refined channels); values: D
    int tile_tokens;        // keys: T
    int scale_groups;       // keys: token groups per page; values: channel groups per token
    size_t scales_offset;   // bytes from the start of the page to the scales
    size_t zeros_offset;    // the same to the zero points (byte_pair)
    size_t page_bytes;

    constexpr bool quantized() const { return scale_kind != ScaleKind::none; }
    constexpr bool blocks() const { return scale_kind == ScaleKind::block; }
    // Whether rows are staged and read as floats, which have a wider range than halves (f32, bf16).
    constexpr bool floats() const { return type == LK_CACHE_F32 || type == LK_CACHE_BF16; }
    // Bytes per token (stock types).
    constexpr size_t row_bytes() const { return page_bytes / kPageTokens; }
    constexpr bool refined_keys() const { return rows > head_size; }
    // Scales included.
    constexpr double bits_per_element() const {
        return 8.0 * static_cast<double>(page_bytes) / (kPageTokens * head_size);
    }
    // Keys: code bytes of one quad, i.e. four rows in one tile.
    constexpr int quad_bytes() const { return tile_tokens * 4 * bits / 8; }
    // Values: bits of a code in the first plane of its block.
    constexpr int plane_bits() const { return bits == 3 ? 2 : bits; }
    // Values: code bytes of one block of 16 tokens by 8 channels.
    constexpr int block_bytes() const { return kValueBlockTokens * kValueBlockChannels * bits / 8; }
    // Values: code bytes of a unit, the blocks of 16 tokens.
    constexpr int unit_bytes() const { return kValueBlockTokens * head_size * bits / 8; }
};

inline constexpr int kHeadEighths = 8;

// The recipe of a type without settings.
constexpr Recipe own_recipe(lk_cache_type type) {
    switch (type) {
    case LK_CACHE_KIVI2:
        return {64, 3, RowType::q8_0, false};
    case LK_CACHE_KIVI3:
        return {32, 4, RowType::q8_0, false};
    case LK_CACHE_KIVI4:
        return {64, 0, RowType::q8_0, false};
    default:
        return {32, 0, RowType::f16, false};
    }
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
    if (!is_kivi(type)) {
        const StockFormat stock = stock_format(type);
        f.bits = stock.bits;
        f.scale_kind = stock.block_bytes > 0 ? ScaleKind::block : ScaleKind::none;
        const int row_bytes = stock.block_bytes > 0 ? head_size / 32 * stock.block_bytes : head_size * stock.bits / 8;
        f.page_bytes = static_cast<size_t>(kPageTokens) * row_bytes;
        f.scales_offset = f.zeros_offset = f.page_bytes;
        return f;
    }
    const bool four_bits = type == LK_CACHE_KIVI4 || type == LK_CACHE_KIVI4_PAPER;
    f.bits = four_bits ? 4 : type == LK_CACHE_KIVI3 && side == Side::values ? 3 : 2;
    size_t scales = 0;  // per page
    if (side == Side::keys) {
        if (is_refined(type)) {
            f.rows += refined_channels(recipe, head_size);
        }
        f.scale_groups = kPageTokens / group;
        f.scale_kind = is_paper(type) ? ScaleKind::half_pair : ScaleKind::byte_pair;
        f.score_correction = !is_paper(type);
        scales = static_cast<size_t>(f.scale_groups) * head_size;
    } else {
        f.scale_groups = is_refined(type) ? 1 : (head_size + group - 1) / group;
        f.scale_kind = is_paper(type)     ? ScaleKind::half_pair
                       : is_refined(type) ? ScaleKind::byte_token
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

// The type's own recipe with another group size.
constexpr PageFormat make_page_format(lk_cache_type type, Side side, int head_size, int group) {
    Recipe recipe = own_recipe(type);
    recipe.group = group;
    return make_page_format(type, side, head_size, recipe);
}

namespace check {  // documented sizes at D = 128
constexpr size_t pair_bytes(lk_cache_type type) {
    return make_page_format(type, Side::keys, 128, own_recipe(type)).page_bytes +
           make_page_format(type, Side::values, 128, own_recipe(type)).page_bytes;
}
static_assert(pair_bytes(LK_CACHE_KIVI2) == 10368);  // 2.53 bits per element
static_assert(pair_bytes(LK_CACHE_KIVI4) == 17408);  // 4.25
static_assert(refined_channels(own_recipe(LK_CACHE_KIVI2), 80) == 28);
static_assert(pair_bytes(LK_CACHE_KIVI2_PAPER) == 12288);
static_assert(pair_bytes(LK_CACHE_KIVI3) == 13440);  // 3.28
static_assert(pair_bytes(LK_CACHE_F16) == 65536);
static_assert(pair_bytes(LK_CACHE_F32) == 131072);
static_assert(pair_bytes(LK_CACHE_BF16) == 65536);
static_assert(pair_bytes(LK_CACHE_Q5_1) == 24576);    // 6
static_assert(pair_bytes(LK_CACHE_Q5_0) == 22528);    // 5.5
static_assert(pair_bytes(LK_CACHE_Q4_1) == 20480);    // 5
static_assert(pair_bytes(LK_CACHE_IQ4_NL) == 18432);  // 4.5
static_assert(make_page_format(LK_CACHE_Q8_0, Side::keys, 64, 32).bits_per_element() == 8.5);
static_assert(make_page_format(LK_CACHE_Q4_0, Side::values, 64, 32).bits_per_element() == 4.5);
static_assert(make_page_format(LK_CACHE_KIVI2, Side::keys, 64, 64).bits_per_element() == 3.0);
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

// Position of a code in a block of values: block of the page, index in the block.
struct ValueIndex {
    size_t block;
    int i;
};

inline ValueIndex value_index(const PageFormat& f, int token, int channel) {
    return {static_cast<size_t>(token / kValueBlockTokens) * (f.head_size / kValueBlockChannels) +
                channel / kValueBlockChannels,
            32 * (token % kValueBlockTokens / 4) + 4 * (channel % kValueBlockChannels) + token % 4};
}

// Position of a token's code in a page of values; of 3-bit codes, the low two bits.
inline CodePlace value_code_place(const PageFormat& f, int token, int channel) {
    const auto [block, i] = value_index(f, token, channel);
    const int n = kValueBlockTokens * kValueBlockChannels * f.plane_bits() / 8;  // bytes of the plane
    return {block * f.block_bytes() + i % n, f.plane_bits() * (i / n)};
}

// Position of the high bit of a 3-bit code.
inline CodePlace value_high_place(const PageFormat& f, int token, int channel) {
    constexpr int kLowBytes = kValueBlockTokens * kValueBlockChannels * 2 / 8;
    constexpr int kHighBytes = kValueBlockTokens * kValueBlockChannels / 8;
    const auto [block, i] = value_index(f, token, channel);
    return {block * f.block_bytes() + kLowBytes + i % kHighBytes, i / kHighBytes};
}

inline int get_code(const uint8_t* page, CodePlace at, int bits) {
    return (page[at.byte] >> at.shift) & ((1 << bits) - 1);
}

inline void set_code(uint8_t* page, CodePlace at, int bits, int code) {
    const int mask = ((1 << bits) - 1) << at.shift;
    page[at.byte] = static_cast<uint8_t>((page[at.byte] & ~mask) | (code << at.shift));
}

inline int get_value(const PageFormat& f, const uint8_t* page, int token, int channel) {
    const int low = get_code(page, value_code_place(f, token, channel), f.plane_bits());
    return f.bits == 3 ? low | get_code(page, value_high_place(f, token, channel), 1) << 2 : low;
}

inline void set_value(const PageFormat& f, uint8_t* page, int token, int channel, int code) {
    set_code(page, value_code_place(f, token, channel), f.plane_bits(), f.bits == 3 ? code & 3 : code);
    if (f.bits == 3) {
        set_code(page, value_high_place(f, token, channel), 1, code >> 2);
    }
}

}  // namespace lk::kv
