// Scores of a tile of queries.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/cpu/attention_runs.h"
#include "backend/cpu/attention_tile.h"

namespace lk::cpu {

using kv::SideView;

namespace {

constexpr int kKeyTokens = 32;  // maximum tokens of a tile of keys
// A key element has rounding noise of variance step^2 / 12. Noise of variance x in a score multiplies its softmax
// weight by exp(x / 2) on average, so half the variance, sum of (q step)^2 / 24, is subtracted.
constexpr float kScoreCorrection = 24.0f;

static_assert(kKeyTokens <= kValueTokens);  // tiles of keys and blocks of values share part_

}  // namespace

// Rotates q for keys whose RoPE positions are `new_frame` above their current positions, and gathers it into code rows.
void Tile::enter_frame(const AttentionArgs& args, const SideView& keys, int new_frame) {
    if (frame_ == new_frame) {
        return;
    }
    frame_ = new_frame;
    const kv::PageFormat& f = keys.spec->format;
    const int d = f.head_size;
    std::copy_n(q_, n_rows_ * d, q_framed_);
    if (frame_ != 0) {
        kv::rotate_heads(args.rotation, frame_, q_framed_, n_rows_, d);
    }
    const int width = padded(f.rows);
    for (int r = 0; r < n_rows_ && f.quantized(); ++r) {
        float* out = q_rows_ + r * width;
        std::copy_n(q_framed_ + r * d, d, out);
        if (f.blocks()) {
            kv::hadamard(out, d);
        }
        std::fill(out + d, out + width, 0.0f);
        const std::vector<uint16_t>& refined = table_of(keys).refined;
        for (size_t i = 0; i < refined.size(); ++i) {
            out[d + i] = q_framed_[r * d + refined[i]];
        }
    }
    std::fill_n(row_scale_, width, 0.0f);
    std::fill_n(row_zero_, width, 0.0f);
    std::fill_n(row_step_, width, 0.0f);
}

// Computes row_scale[code row] and row_zero of a token group: k = row_scale * code + row_zero.
// factor: of the head's byte scales.
void Tile::decode_key_scales(const Kernels& kernels, const SideView& keys, float factor, const uint8_t* page,
                             int group) {
    const kv::PageFormat& f = keys.spec->format;
    const kv::HeadTable& table = table_of(keys);
    const int d = f.head_size;
    if (f.scale_kind == kv::ScaleKind::half_pair) {
        const uint8_t* pairs = page + f.scales_offset + static_cast<size_t>(group) * d * 4;
        for (int c = 0; c < d; ++c) {
            half_t pair[2];
            std::memcpy(pair, pairs + c * 4, 4);
            row_scale_[c] = half_to_float(pair[0]);
            row_zero_[c] = half_to_float(pair[1]);
        }
        return;
    }
    kernels.decode_byte_scales(page + f.scales_offset + static_cast<size_t>(group) * d, d, factor, row_scale_);
    const int8_t* zeros = reinterpret_cast<const int8_t*>(page + f.zeros_offset + static_cast<size_t>(group) * d);
    for (int c = 0; c < d; ++c) {
        row_zero_[c] = row_scale_[c] * static_cast<float>(zeros[c]) * 0.25f;
    }
    std::copy_n(row_scale_, d, row_step_);
    // A refined channel has 4 bits: the high two in its plain row, the low two in a row after the plain rows.
    for (size_t i = 0; i < table.refined.size(); ++i) {
        const int c = table.refined[i];
        row_scale_[d + i] = row_scale_[c];
        row_scale_[c] *= 4.0f;
        row_step_[d + i] = row_step_[c];
        row_step_[c] = 0;
    }
}

// Writes the scores of tokens [first, first + n) of a page to scores[row, at ..].
void Tile::score_codes(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at) {
    const kv::PageFormat& f = keys.spec->format;
    const int width = padded(f.rows);
    const int tile_tokens = f.tile_tokens;
    const float middle = 0.5f * static_cast<float>((1 << f.bits) - 1);
    const int n_quads = f.rows / 4;
    const float factor = std::ldexp(1.0f, table_of(keys).exponent);
    int folded_group = -1;
    for (int tile = first / tile_tokens; tile * tile_tokens < first + n; ++tile) {
        const int token = tile * tile_tokens;
        if (token / f.group != folded_group) {
            folded_group = token / f.group;
            decode_key_scales(kernels, keys, factor, page, folded_group);
            kernels.fold(q_rows_, width, n_rows_, row_scale_, row_zero_, middle, width, folded_, step_, bias_);
            for (int r = 0; r < n_rows_ && f.score_correction; ++r) {
                bias_[r] -= kernels.square_sum(q_rows_ + r * width, row_step_, width) / kScoreCorrection;
            }
        }
        const int from = std::max(first, token);
        const int to = std::min(first + n, token + tile_tokens);
        const bool whole = to - from == tile_tokens;
        float* out = scores_ + at + from - first;
        float* target = whole ? out : part_;
        const int stride = whole ? kChunkTokens : kKeyTokens;
        kernels.score_packed(page + static_cast<size_t>(tile) * n_quads * f.quad_bytes(), n_quads, tile_tokens, f.bits,
                             folded_, width, step_, bias_, n_rows_, target, stride);
        for (int r = 0; r < n_rows_ && !whole; ++r) {
            std::copy(part_ + r * kKeyTokens + from - token, part_ + r * kKeyTokens + to - token,
                      out + r * kChunkTokens);
        }
    }
}

// The same for pages in ggml blocks.
void Tile::score_blocks(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at) {
    const kv::PageFormat& f = keys.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(f.type, page + (first + t) * f.row_bytes(), n_tile * f.head_size, block_rows_);
        kernels.score_exact(block_rows_, n_tile, f.head_size, q_rows_, n_rows_, scores_ + at + t, kChunkTokens);
    }
}

// The same for pages of f32 or bf16.
void Tile::score_floats(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at) {
    const kv::PageFormat& f = keys.spec->format;
    for (int t = 0; t < n; t += kDecodedRows) {
        const int n_rows = std::min(kDecodedRows, n - t);
        const float* const rows = float_rows(f, page, first + t, n_rows, float_rows_);
        kernels.score_floats(rows, n_rows, f.head_size, q_framed_, n_rows_, scores_ + at + t, kChunkTokens);
    }
}

// Writes the scores of tokens [begin, end), of which the first `paged` of the sequence are read from pages.
void Tile::score(const Kernels& kernels, const AttentionArgs& args, const SideView& keys, int paged, int begin,
                 int end) {
    const kv::PageFormat& f = keys.spec->format;
    const int d = f.head_size;
    for_each_run(keys, begin, std::min(end, paged),
                 [&](const kv::PageRef& run, const uint8_t* page, int first, int n, int at) {
                     enter_frame(args, keys, run.frame);
                     if (f.blocks()) {
                         score_blocks(kernels, keys, page, first, n, at);
                     } else if (f.quantized()) {
                         score_codes(kernels, keys, page, first, n, at);
                     } else if (f.floats()) {
                         score_floats(kernels, keys, page, first, n, at);
                     } else {
                         kernels.score_exact(reinterpret_cast<const half_t*>(page) + static_cast<ptrdiff_t>(first) * d,
                                             n, d, q_framed_, n_rows_, scores_ + at, kChunkTokens);
                     }
                 });
    const auto score_exact = [&](int from, int to) {
        for_each_exact(kernels, keys, from, to, block_rows_, [&](const half_t* rows, int n, int at) {
            kernels.score_exact(rows, n, d, q_, n_rows_, scores_ + from - begin + at, kChunkTokens);
        });
    };
    score_exact(begin, std::min(end, keys.sinks_for(paged)));  // replaces the scores of their codes
    score_exact(std::max(begin, paged), end);
}

}  // namespace lk::cpu
