// One tile of attention: query rows of one sequence that read the same tokens from pages, and their query heads of one
// KV head. Every result of a row depends on its query and the tokens' positions alone, not on the other rows of the
// tile, on where pages end or on where the ring wraps.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "kv/codec/kivi_format.h"
#include "kv/storage.h"

namespace lk::cpu {

constexpr int kTileRows = 64;  // target query rows per tile: tokens times query heads per KV head
constexpr int kMaxTileRows = kMaxHeadGroup > kTileRows ? kMaxHeadGroup : kTileRows;
// Cache tokens that share a softmax maximum. Chunks start at multiples of this position; a chunk's sums start at zero,
// and the sums of chunks are added in order.
constexpr int kChunkTokens = 256;
// Tokens whose value weights share an int8 step. Blocks start at multiples of this position.
constexpr int kValueTokens = 32;
static_assert(kChunkTokens % kValueTokens == 0);
constexpr int kMaxCodeRows = 2 * kv::kMaxHeadSize;  // every channel refined
constexpr int kDecodedRows = 32;                    // rows of blocks or bf16 converted at a time

// What a tile reads: one layer and KV head of a sequence, with the numbers of tokens in pages.
struct TileView {
    kv::SideView keys;
    kv::SideView values;
    int paged_k;  // SideView::paged_for of the tile's rows
    int paged_v;
};

// Sums over cache tokens of each row.
struct RowSums {
    float exact[kMaxTileRows * kv::kMaxHeadSize];  // [row, D]: sum of p v over full-precision values
    float coded[kMaxTileRows * kv::kMaxHeadSize];  // [row, D]: sum over quantized values, before rotation and centre
    float mass[kMaxTileRows];                      // sum of p over quantized values
    float max[kMaxTileRows];                       // of the scores; -infinity: no token is visible
    float sum[kMaxTileRows];                       // sum of p

    void clear(int n_rows, int head_size);
};

// A row of sums outside RowSums: exact[D], coded[D], mass, max, sum.
constexpr int sums_width(int head_size) {
    return 2 * head_size + 3;
}

// Scratch memory of one thread.
class Tile {
public:
    RowSums total;  // of the chunks so far

    // Begins a tile of n_rows rows: q [row, D], times the softmax scale, is in query().
    void start(int head_size, int n_rows);
    float* query(int row) { return q_ + row * head_size_; }
    // Computes the sums of tokens [begin, end) of one chunk.
    void attend(const Kernels& kernels, const AttentionArgs& args, const TileView& view, int begin, int end,
                int first_position, int group);
    // Copies the last chunk's sums of a row to out[sums_width].
    void save(int row, float* out) const;
    // Adds the last chunk's sums, or saved ones, to `total`.
    void add_chunk();
    void add_saved(int row, const float* saved);
    // Writes out[D], attention's output of a row.
    void finish(const kv::SideView& values, int row, float* out);

private:
    void score(const Kernels& kernels, const AttentionArgs& args, const kv::SideView& keys, int paged, int begin,
               int end);
    void softmax(const Kernels& kernels, const AttentionArgs& args, int begin, int end, int first_position, int group);
    void accumulate(const Kernels& kernels, const kv::SideView& values, int paged, int begin, int end);

    void enter_frame(const AttentionArgs& args, const kv::SideView& keys, int new_frame);
    void score_blocks(const Kernels& kernels, const kv::SideView& keys, const uint8_t* page, int first, int n, int at);
    void score_floats(const Kernels& kernels, const kv::SideView& keys, const uint8_t* page, int first, int n, int at);
    void score_codes(const Kernels& kernels, const kv::SideView& keys, const uint8_t* page, int first, int n, int at);
    void decode_key_scales(const Kernels& kernels, const kv::SideView& keys, float factor, const uint8_t* page,
                           int group);
    void accumulate_blocks(const Kernels& kernels, const kv::SideView& values, const uint8_t* page, int first, int n,
                           int at);
    void accumulate_floats(const Kernels& kernels, const kv::SideView& values, const uint8_t* page, int first, int n,
                           int at);
    void accumulate_codes(const Kernels& kernels, const kv::SideView& values, int begin, int end, int at);
    const uint8_t* load_value_block(const Kernels& kernels, const kv::SideView& values, float factor, int begin,
                                    int end);
    void load_value_codes(const Kernels& kernels, const kv::PageFormat& f, const uint8_t* page, int first, int n,
                          int at);
    void decode_value_scales(const Kernels& kernels, const kv::PageFormat& f, float factor, const uint8_t* page,
                             int first, int n, int at);
    void add(int row, const float* exact, const float* coded, float mass, float max, float sum);

    int head_size_;
    int n_rows_;
    int frame_;  // of q_framed_ and q_rows_; kNoFrame: not computed
    RowSums chunk_;
    float scores_[kMaxTileRows * kChunkTokens];        // scores, then p
    float q_[kMaxTileRows * kv::kMaxHeadSize];         // [row, D], times the softmax scale
    float q_framed_[kMaxTileRows * kv::kMaxHeadSize];  // [row, D]: q rotated into the frame of a page's keys
    float q_rows_[kMaxTileRows * kMaxCodeRows];        // [row, code rows padded]: q_framed at each code row's channel
    float row_scale_[kMaxCodeRows];                    // of one token group
    float row_zero_[kMaxCodeRows];
    float row_step_[kMaxCodeRows];                // quantization step of a channel, in its last code row; otherwise 0
    int8_t folded_[kMaxTileRows * kMaxCodeRows];  // int8 weights of codes, [row, code rows padded] or [row, tokens]
    float step_[kMaxTileRows];
    float bias_[kMaxTileRows];
    float part_[kMaxTileRows * kValueTokens];         // scores of part of a tile of keys, or p of part of a value block
    uint8_t codes_[kv::kMaxHeadSize * kValueTokens];  // a block of values, one byte per code
    float value_scale_[kv::kMaxHeadSize / 16 * kValueTokens];  // [channel group, token]
    float value_zero_[kv::kMaxHeadSize / 16 * kValueTokens];
    half_t block_rows_[kDecodedRows * kv::kMaxHeadSize];  // rows of blocks, dequantized
    float float_rows_[kDecodedRows * kv::kMaxHeadSize];   // rows of bf16
};

}  // namespace lk::cpu
