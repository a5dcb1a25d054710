// The bytes of a page that flash attention copies to shared memory for a tile of 64 tokens, and the memory they need.
// C++17, because the kernel includes it too.
#pragma once

#include "backend/cuda/plan/attention_plan.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// Whether flash attention compiled for heads of `width` copies a format's codes and decodes them with compile-time bits
// and head size. It decodes other KIVI formats from global memory.
LK_HD constexpr bool copies_codes(const kv::PageFormat& f, int width) {
    return f.quantized() && !f.blocks() && f.head_size == width && (f.side == kv::Side::values || f.tile_tokens == 32);
}

// Bytes of shared memory for the codes and scales of a tile.
template <int kWidth>
struct FlashCodeBytes {
    static constexpr int kCodes = kFlashTile * kWidth / 2;  // 4 bits, or 2 bits with all channels refined
    // Keys: two token groups of scale and minimum, or of byte scales and zero points.
    static constexpr int kKeys = kCodes + 2 * kWidth * 4;
    // Values: a scale and a minimum per 16 channels.
    static constexpr int kValues = kCodes + kFlashTile * kWidth / 16 * 4;
};

// Ranges of a page, in bytes; all are multiples of 16. The tile does not cross a multiple of 64 tokens.
struct FlashCodes {
    int codes;
    int n_codes;
    int scales;  // relative to scales_offset, and to zeros_offset
    int n_scales;

    // token: the tile's first in the page. n: its tokens.
    LK_HD static constexpr FlashCodes of_keys(const kv::PageFormat& f, int token, int n) {
        const int part_bytes = f.rows * 4 * f.bits;  // 32 tokens
        const int part = token / 32;
        const int group_bytes = f.head_size * (f.scale_kind == kv::ScaleKind::half_pair ? 4 : 1);
        const int group = token / f.group;
        return {part * part_bytes, ((token + n - 1) / 32 - part + 1) * part_bytes, group * group_bytes,
                ((token + n - 1) / f.group - group + 1) * group_bytes};
    }

    LK_HD static constexpr FlashCodes of_values(const kv::PageFormat& f, int token, int n) {
        constexpr int kBlock = kv::kValueBlockTokens;
        const int block_bytes = kBlock * f.head_size * f.bits / 8;
        const int block = token / kBlock;
        const int blocks = (token + n - 1) / kBlock - block + 1;
        const int scale_bytes = kBlock * f.scale_groups * (f.scale_kind == kv::ScaleKind::half_pair ? 4 : 1);
        return {block * block_bytes, blocks * block_bytes, block * scale_bytes, blocks * scale_bytes};
    }

    // Whether zero points follow the scales.
    LK_HD static constexpr bool has_zeros(const kv::PageFormat& f) { return f.scale_kind == kv::ScaleKind::byte_pair; }
};

}  // namespace lk::cuda
