// The rows of an append to one head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/append/half_words.h"
#include "backend/cuda/plan/append_work.h"
#include "backend/cuda/plan/segments.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// Bytes of a block of 32 channels in a row of a q8_0 ring; only the last block may be shorter.
constexpr int kRingBlockBytes = 2 + 32;

// Ring rows, oldest first, then staged rows.
struct HeadRows {
    const uint16_t* ring;    // [ring_rows, D]; unused if the ring is q8_0
    const uint8_t* blocks;   // [ring_rows, row_bytes] of a q8_0 ring; otherwise null
    const uint16_t* staged;  // [row, staged_width]
    int start;
    int n_ring;
    int ring_rows;
    int d;
    int row_bytes;
    int staged_width;

    LK_HD HeadRows(const SideShape& shape, const AppendWork& work, int head)
        : ring(work.ring == nullptr ? nullptr
                                    : work.ring + static_cast<size_t>(head) * shape.ring_rows * shape.format.head_size),
          blocks(work.ring_blocks == nullptr
                     ? nullptr
                     : work.ring_blocks + static_cast<size_t>(head) * shape.ring_rows * shape.ring_row_bytes),
          staged(work.staged + static_cast<size_t>(head) * shape.n_ubatch * shape.staged_width),
          start(work.ring_start),
          n_ring(work.n_ring),
          ring_rows(shape.ring_rows),
          d(shape.format.head_size),
          row_bytes(shape.ring_row_bytes),
          staged_width(shape.staged_width) {}

    LK_HD bool in_blocks(int i) const { return blocks != nullptr && i < n_ring; }
    LK_HD size_t ring_row(int i) const {
        const int at = start + i;
        return static_cast<size_t>(at < ring_rows ? at : at - ring_rows);
    }
    // A row that is not in a q8_0 ring.
    LK_HD const uint16_t* row(int i) const {
        return i >= n_ring ? staged + static_cast<size_t>(i - n_ring) * staged_width : ring + ring_row(i) * d;
    }
    // The block of channel c in a row that is in a q8_0 ring.
    LK_HD const uint8_t* block(int i, int c) const {
        return blocks + ring_row(i) * row_bytes + c / 32 * kRingBlockBytes;
    }
    // Element c of row i; from a q8_0 ring decoded as by kv::decode_q8_row.
    LK_HD uint16_t half(int i, int c) const {
        if (!in_blocks(i)) {
            return row(i)[c];
        }
        const uint8_t* const from = block(i, c);
        const float scale = kv::half_value(*reinterpret_cast<const uint16_t*>(from));
        return kv::rounded_half(scale * static_cast<float>(static_cast<int8_t>(from[2 + c % 32])));
    }
    LK_HD float at(int i, int c) const { return kv::half_value(half(i, c)); }

    // Elements [c, c + 4) of a block of a q8_0 ring, which is aligned to 2 bytes; c is a multiple of 4.
    LK_HD static Words2 four_of_block(const uint8_t* block, int c) {
        const uint16_t* const from = reinterpret_cast<const uint16_t*>(block);
        const uint16_t* const codes = from + 1 + c / 2;
        const uint32_t scale = from[0] * 0x10001u;
        const uint32_t flipped = (codes[0] | static_cast<uint32_t>(codes[1]) << 16) ^ kSignBits;
        return {ring_halves(flipped, 0, scale), ring_halves(flipped, 2, scale)};
    }
    // Elements [c, c + 4) of row i.
    LK_HD Words2 four(int i, int c) const {
        return in_blocks(i) ? four_of_block(block(i, c), c % 32) : load_two(row(i) + c);
    }
};

}  // namespace lk::cuda
