#include "backend/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace lk::cpu {

namespace {

using kv::SideView;

constexpr int kKeyTokens = 32;  // maximum tokens of a tile of keys
constexpr int kNoFrame = std::numeric_limits<int>::min();
// A key element has rounding noise of variance step^2 / 12. Noise of variance x in a score multiplies its softmax
// weight by exp(x / 2) on average, so half the variance, sum of (q step)^2 / 24, is subtracted.
constexpr float kScoreCorrection = 24.0f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

static_assert(kKeyTokens <= kValueTokens);  // tiles of keys and blocks of values share codes_ and part_

int padded(int n) {
    return (n + 15) / 16 * 16;  // Kernels::fold needs n % 16 == 0
}

// Splits tokens [begin, end), which the caller reads from pages, into runs inside one page. Calls
// visit(run, page, first, n, at): n tokens of the page from token `first` on; `at` counts from begin.
template <class Visit>
void for_each_run(const SideView& view, int begin, int end, Visit visit) {
    int first = 0;  // token of the sequence at which the run begins
    for (const auto& runs : {view.pages, view.staged_pages}) {
        for (size_t i = 0; i < runs.size() && first < end; ++i) {
            const kv::PageRef& run = runs[i];
            const int from = std::max(begin, first);
            const int to = std::min(end, first + run.count);
            if (from < to) {
                visit(run, run.block->data.data() + view.page_offset, run.first + from - first, to - from,
                      from - begin);
            }
            first += run.count;
        }
    }
}

// Dequantizes n <= kDecodedRows contiguous rows of a q8_0 ring into rows[n, D].
void decode_ring(const Kernels& kernels, const SideView& view, int token, int n, half_t* rows) {
    const int d = view.spec->format.head_size;
    const uint8_t* const blocks = view.ring_block_row(token);
    if (d % kBlock == 0) {
        kernels.half_blocks(WeightType::Q8_0, blocks, n * d, rows);
        return;
    }
    for (int i = 0; i < n; ++i) {  // the last block of each row is short
        kv::decode_q8_row(blocks + i * view.spec->ring_row_bytes(), d, rows + i * d);
    }
}

// Splits tokens [begin, end) into contiguous exact rows. Calls visit(rows, n, at); `at` counts from begin. decoded:
// scratch for rows of a q8_0 ring, [kDecodedRows, D].
template <class Visit>
void for_each_exact(const Kernels& kernels, const SideView& view, int begin, int end, half_t* decoded, Visit visit) {
    for (int t = begin; t < end;) {
        int n = view.exact_run(t, end);
        if (view.in_ring_blocks(t)) {
            n = std::min(n, kDecodedRows);
            decode_ring(kernels, view, t, n, decoded);
            visit(decoded, n, t - begin);
        } else {
            visit(view.exact_row(t), n, t - begin);
        }
        t += n;
    }
}

// Head table of the pages. In the call that chooses it, pages hold no quantized token yet, so it is the staged one.
const kv::HeadTable& table_of(const SideView& view) {
    return *view.staged_table;
}

}  // namespace

void RowSums::clear(int n_rows, int head_size) {
    std::fill_n(exact, n_rows * head_size, 0.0f);
    std::fill_n(coded, n_rows * head_size, 0.0f);
    std::fill_n(mass, n_rows, 0.0f);
    std::fill_n(max, n_rows, kMinusInfinity);
    std::fill_n(sum, n_rows, 0.0f);
}

void Tile::start(int head_size, int n_rows) {
    head_size_ = head_size;
    n_rows_ = n_rows;
    frame_ = kNoFrame;
    total.clear(n_rows, head_size);
}

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
void Tile::decode_key_scales(const Kernels& kernels, const SideView& keys, const uint8_t* page, int group) {
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
    kernels.decode_byte_scales(page + f.scales_offset + static_cast<size_t>(group) * d, d,
                               std::ldexp(1.0f, table.exponent), row_scale_);
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
    int folded_group = -1;
    for (int tile = first / tile_tokens; tile * tile_tokens < first + n; ++tile) {
        const int token = tile * tile_tokens;
        if (token / f.group != folded_group) {
            folded_group = token / f.group;
            decode_key_scales(kernels, keys, page, folded_group);
            kernels.fold(q_rows_, width, n_rows_, row_scale_, row_zero_, middle, width, folded_, step_, bias_);
            for (int r = 0; r < n_rows_ && f.recipe.score_correction; ++r) {
                bias_[r] -= kernels.square_sum(q_rows_ + r * width, row_step_, width) / kScoreCorrection;
            }
        }
        kernels.unpack_codes(page + static_cast<size_t>(tile) * n_quads * f.quad_bytes(), n_quads, f.quad_bytes(),
                             f.bits, codes_, 4 * tile_tokens, 32);
        const int from = std::max(first, token);
        const int to = std::min(first + n, token + tile_tokens);
        const bool whole = to - from == tile_tokens;
        float* out = scores_ + at + from - first;
        float* target = whole ? out : part_;
        const int stride = whole ? kChunkTokens : kKeyTokens;
        for (int r = 0; r < n_rows_; ++r) {
            std::fill_n(target + r * stride, tile_tokens, 0.0f);
        }
        kernels.dot_codes(codes_, 4 * tile_tokens, n_quads, tile_tokens, folded_, width, step_, bias_, n_rows_, target,
                          stride);
        for (int r = 0; r < n_rows_ && !whole; ++r) {
            std::copy(part_ + r * kKeyTokens + from - token, part_ + r * kKeyTokens + to - token,
                      out + r * kChunkTokens);
        }
    }
}

// The same for pages of q8_0 or q4_0.
void Tile::score_blocks(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at) {
    const kv::PageFormat& f = keys.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(kv::block_type(f), page + (first + t) * f.row_bytes(), n_tile * f.head_size, block_rows_);
        kernels.score_exact(block_rows_, n_tile, f.head_size, q_rows_, n_rows_, scores_ + at + t, kChunkTokens);
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

// Turns scores into p, exp(score - maximum of the chunk), and hidden scores into 0.
void Tile::softmax(const Kernels& kernels, const AttentionArgs& args, int begin, int end, int first_position,
                   int group) {
    const int n = end - begin;
    for (int r = 0; r < n_rows_; ++r) {
        float* scores = scores_ + r * kChunkTokens;
        const int position = first_position + r / group;
        const int visible = std::min(n, position + 1 - begin);
        const int hidden = args.window > 0 ? std::max(0, position + 1 - args.window - begin) : 0;
        if (visible <= hidden) {
            std::fill_n(scores, n, 0.0f);
            continue;
        }
        chunk_.max[r] = kernels.max(scores + hidden, visible - hidden);
        chunk_.sum[r] = kernels.softmax_part(scores + hidden, visible - hidden, chunk_.max[r]);
        std::fill_n(scores, hidden, 0.0f);
        std::fill_n(scores + visible, n - visible, 0.0f);
    }
}

// Computes value_scale[channel group, token] and value_zero from token `at` on: v = value_scale * code + value_zero.
void Tile::decode_value_scales(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n,
                               int at) {
    const kv::PageFormat& f = values.spec->format;
    const float factor = std::ldexp(1.0f, table_of(values).exponent);
    if (f.scale_kind == kv::ScaleKind::byte_token) {
        const uint8_t* const scales = page + f.scales_offset + first;
        const int whole = n / 8 * 8;
        kernels.decode_byte_scales(scales, whole, factor, value_scale_ + at);
        for (int t = whole; t < n; ++t) {
            value_scale_[at + t] = half_to_float(static_cast<half_t>(scales[t] << 6)) * factor;
        }
        for (int t = at; t < at + n; ++t) {
            value_zero_[t] = -1.5f * value_scale_[t];  // level = code - 3/2
        }
        return;
    }
    for (int t = 0; t < n; ++t) {
        for (int g = 0; g < f.scale_groups; ++g) {
            const size_t from = static_cast<size_t>(first + t) * f.scale_groups + g;
            float& s = value_scale_[g * kValueTokens + at + t];
            float& z = value_zero_[g * kValueTokens + at + t];
            if (f.scale_kind == kv::ScaleKind::half_pair) {
                half_t pair[2];
                std::memcpy(pair, page + f.scales_offset + from * 4, 4);
                s = half_to_float(pair[0]);
                z = half_to_float(pair[1]);
            } else {
                s = half_to_float(static_cast<half_t>(page[f.scales_offset + from] << 6)) * factor;
                z = s * static_cast<float>(static_cast<int8_t>(page[f.zeros_offset + from])) * 0.25f;
            }
        }
    }
}

// Unpacks the codes of a page's tokens [first, first + n) into codes[token quad, channel, token of the quad], from
// token `at` on. Tokens after them may be overwritten.
void Tile::load_value_codes(const Kernels& kernels, const kv::PageFormat& f, const uint8_t* page, int first, int n,
                            int at) {
    constexpr int kUnit = kv::kValueBlockTokens;
    const int d = f.head_size;
    const int n_blocks = d / kv::kValueBlockChannels;
    const int end = at + n;
    // Whole units, if the page's units are aligned with the block. Otherwise, as after cuts, token by token.
    const bool aligned = (first - at) % kUnit == 0;
    for (int t = at; t < end;) {
        const int token = first + t - at;
        if (aligned && t % kUnit == 0) {
            kernels.unpack_codes(page + static_cast<size_t>(token / kUnit) * n_blocks * f.block_bytes(), n_blocks,
                                 f.block_bytes(), f.bits, codes_ + t * d, 32, 4 * d);
            t += kUnit;
            continue;
        }
        for (int c = 0; c < d; ++c) {
            codes_[(t / 4 * d + c) * 4 + t % 4] =
                static_cast<uint8_t>(kv::get_code(page, kv::value_code_place(f, token, c), f.bits));
        }
        ++t;
    }
}

// Loads codes and scales of tokens [begin, end) of one block.
void Tile::load_value_block(const Kernels& kernels, const SideView& values, int begin, int end) {
    for_each_run(values, begin, end, [&](const kv::PageRef&, const uint8_t* page, int first, int n, int at) {
        load_value_codes(kernels, values.spec->format, page, first, n, at);
        decode_value_scales(kernels, values, page, first, n, at);
    });
    const int n = end - begin;
    for (int g = 0; g < values.spec->format.scale_groups; ++g) {
        std::fill(value_scale_ + g * kValueTokens + n, value_scale_ + g * kValueTokens + padded(n), 0.0f);
        std::fill(value_zero_ + g * kValueTokens + n, value_zero_ + g * kValueTokens + padded(n), 0.0f);
    }
}

// Accumulates p v of quantized tokens [begin, end). scores holds p from `at` on; begin is a multiple of kValueTokens.
void Tile::accumulate_codes(const Kernels& kernels, const SideView& values, int begin, int end, int at) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    const float middle = 0.5f * static_cast<float>((1 << f.bits) - 1);
    for (int block = begin; block < end; block += kValueTokens) {
        const int n = std::min(kValueTokens, end - block);
        const int width = padded(n);
        load_value_block(kernels, values, block, block + n);
        const float* p = scores_ + at + block - begin;
        int stride = kChunkTokens;
        if (width > n) {  // later tokens are not quantized
            for (int r = 0; r < n_rows_; ++r) {
                std::copy_n(p + r * kChunkTokens, n, part_ + r * kValueTokens);
                std::fill_n(part_ + r * kValueTokens + n, width - n, 0.0f);
            }
            p = part_;
            stride = kValueTokens;
        }
        for (int g = 0; g < f.scale_groups; ++g) {
            const int first = g * f.group;
            const int last = f.scale_groups == 1 ? d : std::min(d, first + f.group);
            kernels.fold(p, stride, n_rows_, value_scale_ + g * kValueTokens, value_zero_ + g * kValueTokens, middle,
                         width, folded_, step_, bias_);
            kernels.dot_codes(codes_ + 4 * first, 4 * d, width / 4, last - first, folded_, width, step_, bias_, n_rows_,
                              chunk_.coded + first, d);
        }
    }
    for (int r = 0; r < n_rows_; ++r) {
        chunk_.mass[r] = kernels.sum(scores_ + r * kChunkTokens + at, end - begin);
    }
}

// The same for a page of q8_0 or q4_0. The sum stays rotated.
void Tile::accumulate_blocks(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n,
                             int at) {
    const kv::PageFormat& f = values.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(kv::block_type(f), page + (first + t) * f.row_bytes(), n_tile * f.head_size, block_rows_);
        kernels.accumulate_exact(block_rows_, n_tile, f.head_size, scores_ + at + t, kChunkTokens, n_rows_,
                                 chunk_.coded);
    }
}

// Accumulates p v of tokens [begin, end), of which the first `paged` of the sequence are read from pages.
void Tile::accumulate(const Kernels& kernels, const SideView& values, int paged, int begin, int end) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    const auto add_exact = [&](int from, int to) {
        for_each_exact(kernels, values, from, to, block_rows_, [&](const half_t* rows, int n, int at) {
            kernels.accumulate_exact(rows, n, d, scores_ + from - begin + at, kChunkTokens, n_rows_, chunk_.exact);
        });
    };
    const int sinks_end = std::min(end, values.sinks_for(paged));
    if (begin < sinks_end) {
        add_exact(begin, sinks_end);
        for (int r = 0; r < n_rows_; ++r) {
            std::fill_n(scores_ + r * kChunkTokens, sinks_end - begin, 0.0f);  // pages also have codes for the sinks
        }
    }
    const int paged_end = std::min(end, paged);
    if (begin < paged_end && f.quantized() && !f.blocks()) {
        accumulate_codes(kernels, values, begin, paged_end, 0);
    } else {
        for_each_run(values, begin, paged_end, [&](const kv::PageRef&, const uint8_t* page, int first, int n, int at) {
            if (f.blocks()) {
                accumulate_blocks(kernels, values, page, first, n, at);
            } else {
                kernels.accumulate_exact(reinterpret_cast<const half_t*>(page) + static_cast<ptrdiff_t>(first) * d, n,
                                         d, scores_ + at, kChunkTokens, n_rows_, chunk_.exact);
            }
        });
    }
    add_exact(std::max(begin, paged), end);
}

void Tile::attend(const Kernels& kernels, const AttentionArgs& args, const TileView& view, int begin, int end,
                  int first_position, int group) {
    chunk_.clear(n_rows_, head_size_);
    score(kernels, args, view.keys, view.paged_k, begin, end);
    softmax(kernels, args, begin, end, first_position, group);
    accumulate(kernels, view.values, view.paged_v, begin, end);
}

void Tile::save(int row, float* out) const {
    const int d = head_size_;
    std::copy_n(chunk_.exact + row * d, d, out);
    std::copy_n(chunk_.coded + row * d, d, out + d);
    out[2 * d] = chunk_.mass[row];
    out[2 * d + 1] = chunk_.max[row];
    out[2 * d + 2] = chunk_.sum[row];
}

// The running softmax: sums with two maxima are brought to the larger one.
void Tile::add(int row, const float* exact, const float* coded, float mass, float max, float sum) {
    if (sum == 0) {  // the row sees no token of this chunk
        return;
    }
    const float top = std::max(total.max[row], max);
    const float old_factor = std::exp(total.max[row] - top);
    const float new_factor = std::exp(max - top);
    const int d = head_size_;
    float* const total_exact = total.exact + row * d;
    float* const total_coded = total.coded + row * d;
    for (int c = 0; c < d; ++c) {
        total_exact[c] = total_exact[c] * old_factor + exact[c] * new_factor;
        total_coded[c] = total_coded[c] * old_factor + coded[c] * new_factor;
    }
    total.mass[row] = total.mass[row] * old_factor + mass * new_factor;
    total.sum[row] = total.sum[row] * old_factor + sum * new_factor;
    total.max[row] = top;
}

void Tile::add_chunk() {
    for (int r = 0; r < n_rows_; ++r) {
        add(r, chunk_.exact + r * head_size_, chunk_.coded + r * head_size_, chunk_.mass[r], chunk_.max[r],
            chunk_.sum[r]);
    }
}

void Tile::add_saved(int row, const float* saved) {
    const int d = head_size_;
    add(row, saved, saved + d, saved[2 * d], saved[2 * d + 1], saved[2 * d + 2]);
}

void Tile::finish(const SideView& values, int row, float* out) {
    const kv::PageFormat& f = values.spec->format;
    const int d = head_size_;
    float* coded = total.coded + row * d;
    if (f.blocks()) {
        kv::hadamard(coded, d);
    } else if (f.scale_kind == kv::ScaleKind::byte_token && total.mass[row] > 0) {
        kv::hadamard(coded, d);
        const std::vector<half_t>& mu = table_of(values).mu;
        for (int c = 0; c < d; ++c) {
            coded[c] += total.mass[row] * half_to_float(mu[c]);
        }
    }
    const float factor = 1.0f / total.sum[row];
    for (int c = 0; c < d; ++c) {
        out[c] = (total.exact[row * d + c] + coded[c]) * factor;
    }
}

}  // namespace lk::cpu
