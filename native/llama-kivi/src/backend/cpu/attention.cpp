#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace lk::cpu {

namespace {

using kv::SideView;

constexpr int kTaskRows = 64;  // target query rows per task: tokens times query heads per KV head
constexpr int kMaxRows = kMaxHeadGroup > kTaskRows ? kMaxHeadGroup : kTaskRows;
constexpr int kChunk = 512;                         // cache tokens between two updates of the running softmax
constexpr int kMinSplit = 256;                      // minimum cache tokens per task
constexpr int kValueTokens = 32;                    // tokens whose value weights share an int8 step
constexpr int kPartTokens = 32;                     // maximum tokens of a tile
constexpr int kMaxCodeRows = 2 * kv::kMaxHeadSize;  // every channel refined
constexpr int kNoFrame = std::numeric_limits<int>::min();
// A key element has rounding noise of variance step^2 / 12. Noise of variance x in a score multiplies its softmax
// weight by exp(x / 2) on average, so half the variance, sum of (q step)^2 / 24, is subtracted.
constexpr float kScoreCorrection = 24.0f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int padded(int n) {
    return (n + 15) / 16 * 16;  // Kernels::fold needs n % 16 == 0
}

constexpr int kDecodedRows = 32;  // rows of blocks dequantized at a time

// Rows [slot, slot + n) of a ring in halves, n <= kDecodedRows if the ring is q8_0: in place, or dequantized into
// decoded[n, D].
const half_t* ring_rows(const Kernels& kernels, const SideView& view, int slot, int n, half_t* decoded) {
    const int d = view.spec->format.head_size;
    if (view.ring_blocks == nullptr) {
        return view.ring + static_cast<ptrdiff_t>(slot) * d;
    }
    const size_t row_bytes = view.spec->ring_row_bytes();
    const uint8_t* const rows = view.ring_blocks + slot * row_bytes;
    if (d % kBlock == 0) {
        kernels.half_blocks(WeightType::Q8_0, rows, n * d, decoded);
        return decoded;
    }
    for (int i = 0; i < n; ++i) {  // the last block of each row is short
        kv::decode_q8_row(rows + i * row_bytes, d, decoded + i * d);
    }
    return decoded;
}

// Splits the tokens [begin, end) of the view into runs. Calls page(ref, page, first_token, n, at) for runs inside one
// page and exact(rows, n, at) for runs of full-precision rows; `at` counts from begin. decoded: see ring_rows.
template <class Page, class Exact>
void for_each_run(const Kernels& kernels, const SideView& view, int begin, int end, half_t* decoded, Page page,
                  Exact exact) {
    const int d = view.spec->format.head_size;
    int first = 0;
    for (size_t i = 0; i < view.pages.size() && first < end; ++i) {
        const kv::PageRef& ref = view.pages[i];
        const int count = ref.count;
        const int from = std::max(begin, first);
        const int to = std::min(end, first + count);
        if (from < to) {
            page(ref, view.page(i), ref.first + from - first, to - from, from - begin);
        }
        first += count;
    }
    for (int t = std::max(begin, view.n_paged); t < std::min(end, view.length());) {
        const int slot = (view.ring_start + t - view.n_paged) % view.spec->ageing.trigger;
        const int most = view.ring_blocks == nullptr ? view.spec->ageing.trigger : kDecodedRows;
        const int n = std::min({end - t, view.length() - t, view.spec->ageing.trigger - slot, most});
        exact(ring_rows(kernels, view, slot, n, decoded), n, t - begin);
        t += n;
    }
    const int t = std::max(begin, view.length());
    if (t < end) {
        exact(view.staged + static_cast<ptrdiff_t>(t - view.length()) * d, end - t, t - begin);
    }
}

}  // namespace

struct Attention::Scratch {
    float scores[kMaxRows * kChunk];
    float q[kMaxRows * kv::kMaxHeadSize];         // [row, D], times the softmax scale
    float q_framed[kMaxRows * kv::kMaxHeadSize];  // [row, D]: q rotated into the frame of a page's keys
    float q_rows[kMaxRows * kMaxCodeRows];        // [row, code rows padded]: q_framed at each code row's channel
    float row_scale[kMaxCodeRows];                // of one token group
    float row_zero[kMaxCodeRows];
    float row_step[kMaxCodeRows];            // quantization step of a channel, in its last code row; otherwise 0
    int8_t folded[kMaxRows * kMaxCodeRows];  // int8 weights of the codes, [row, code rows padded] or [row, 32 tokens]
    float step[kMaxRows];
    float bias[kMaxRows];
    float part[kMaxRows * kPartTokens];                       // scores or p of part of a tile, [row, token]
    uint8_t codes[kMaxCodeRows * 32];                         // a tile of keys, or 32 tokens of values, 1 byte per code
    float value_scale[kv::kMaxHeadSize / 16 * kValueTokens];  // [channel group, token]
    float value_zero[kv::kMaxHeadSize / 16 * kValueTokens];
    half_t tile[kDecodedRows * kv::kMaxHeadSize];  // rows of blocks, dequantized
    float exact[kMaxRows * kv::kMaxHeadSize];      // [row, D]: sum of p v over full-precision values
    float coded[kMaxRows * kv::kMaxHeadSize];      // [row, D]: sum over quantized values, before rotation and centre
    float mass[kMaxRows];                          // sum of p over quantized values
    float max[kMaxRows];
    float sum[kMaxRows];
    int frame;  // of q_framed and q_rows; kNoFrame: not computed

    void start(int head_size, int n_rows);
    void score(const Kernels& kernels, const AttentionArgs& args, const SideView& keys, int begin, int end, int n_rows);
    void accumulate(const Kernels& kernels, const SideView& values, int begin, int end, int n_rows);
    void finish(const SideView& values, int row, float* out);

private:
    void enter_frame(const AttentionArgs& args, const SideView& keys, int new_frame, int n_rows);
    void score_blocks(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at,
                      int n_rows);
    void accumulate_blocks(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n,
                           int at, int n_rows);
    void score_page(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n, int at,
                    int n_rows);
    void accumulate_page(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n, int at,
                         int n_rows);
    void decode_key_scales(const Kernels& kernels, const SideView& keys, const uint8_t* page, int group);
    void decode_value_scales(const Kernels& kernels, const SideView& values, const uint8_t* page, int token);
};

void Attention::Scratch::start(int head_size, int n_rows) {
    std::fill_n(exact, n_rows * head_size, 0.0f);
    std::fill_n(coded, n_rows * head_size, 0.0f);
    std::fill_n(mass, n_rows, 0.0f);
    std::fill_n(sum, n_rows, 0.0f);
    std::fill_n(max, n_rows, kMinusInfinity);
    frame = kNoFrame;
}

// Rotates q for keys whose RoPE positions are `new_frame` above their current positions, and gathers it into code rows.
void Attention::Scratch::enter_frame(const AttentionArgs& args, const SideView& keys, int new_frame, int n_rows) {
    if (frame == new_frame) {
        return;
    }
    frame = new_frame;
    const kv::PageFormat& f = keys.spec->format;
    const int d = f.head_size;
    std::copy_n(q, n_rows * d, q_framed);
    if (frame != 0) {
        kv::rotate_heads(args.rotation, frame, q_framed, n_rows, d);
    }
    const int width = padded(f.rows);
    for (int r = 0; r < n_rows && f.quantized(); ++r) {
        float* out = q_rows + r * width;
        std::copy_n(q_framed + r * d, d, out);
        if (f.blocks()) {
            kv::hadamard(out, d);
        }
        std::fill(out + d, out + width, 0.0f);
        for (size_t i = 0; i < keys.table->refined.size(); ++i) {
            out[d + i] = q_framed[r * d + keys.table->refined[i]];
        }
    }
    std::fill_n(row_scale, width, 0.0f);
    std::fill_n(row_zero, width, 0.0f);
    std::fill_n(row_step, width, 0.0f);
}

// Computes row_scale[code row] and row_zero of a token group: k = row_scale * code + row_zero.
void Attention::Scratch::decode_key_scales(const Kernels& kernels, const SideView& keys, const uint8_t* page,
                                           int group) {
    const kv::PageFormat& f = keys.spec->format;
    const int d = f.head_size;
    if (f.scale_kind == kv::ScaleKind::half_pair) {
        const uint8_t* pairs = page + f.scales_offset + static_cast<size_t>(group) * d * 4;
        for (int c = 0; c < d; ++c) {
            half_t pair[2];
            std::memcpy(pair, pairs + c * 4, 4);
            row_scale[c] = half_to_float(pair[0]);
            row_zero[c] = half_to_float(pair[1]);
        }
        return;
    }
    kernels.decode_byte_scales(page + f.scales_offset + static_cast<size_t>(group) * d, d,
                               std::ldexp(1.0f, keys.table->exponent), row_scale);
    const int8_t* zeros = reinterpret_cast<const int8_t*>(page + f.zeros_offset + static_cast<size_t>(group) * d);
    for (int c = 0; c < d; ++c) {
        row_zero[c] = row_scale[c] * static_cast<float>(zeros[c]) * 0.25f;
    }
    std::copy_n(row_scale, d, row_step);
    // A refined channel has 4 bits: the high two in its plain row, the low two in a row after the plain rows.
    for (size_t i = 0; i < keys.table->refined.size(); ++i) {
        const int c = keys.table->refined[i];
        row_scale[d + i] = row_scale[c];
        row_scale[c] *= 4.0f;
        row_step[d + i] = row_step[c];
        row_step[c] = 0;
    }
}

// Adds the scores of tokens [first, first + n) of a page to scores[row, at ..].
void Attention::Scratch::score_page(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first, int n,
                                    int at, int n_rows) {
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
            kernels.fold(q_rows, width, n_rows, row_scale, row_zero, middle, width, folded, step, bias);
            for (int r = 0; r < n_rows && f.recipe.score_correction; ++r) {
                bias[r] -= kernels.square_sum(q_rows + r * width, row_step, width) / kScoreCorrection;
            }
        }
        kernels.unpack_codes(page + static_cast<size_t>(tile) * n_quads * f.quad_bytes(), n_quads, f.quad_bytes(),
                             f.bits, codes, 4 * tile_tokens, 32);
        const int from = std::max(first, token);
        const int to = std::min(first + n, token + tile_tokens);
        const bool whole = to - from == tile_tokens;
        float* out = scores + at + from - first;
        float* target = whole ? out : part;
        const int stride = whole ? kChunk : kPartTokens;
        for (int r = 0; r < n_rows; ++r) {
            std::fill_n(target + r * stride, tile_tokens, 0.0f);
        }
        kernels.dot_codes(codes, 4 * tile_tokens, n_quads, tile_tokens, folded, width, step, bias, n_rows, target,
                          stride);
        for (int r = 0; r < n_rows && !whole; ++r) {
            std::copy(part + r * kPartTokens + from - token, part + r * kPartTokens + to - token, out + r * kChunk);
        }
    }
}

// The same for pages of q8_0 or q4_0.
void Attention::Scratch::score_blocks(const Kernels& kernels, const SideView& keys, const uint8_t* page, int first,
                                      int n, int at, int n_rows) {
    const kv::PageFormat& f = keys.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(kv::block_type(f), page + (first + t) * f.row_bytes(), n_tile * f.head_size, tile);
        kernels.score_exact(tile, n_tile, f.head_size, q_rows, n_rows, scores + at + t, kChunk);
    }
}

void Attention::Scratch::score(const Kernels& kernels, const AttentionArgs& args, const SideView& keys, int begin,
                               int end, int n_rows) {
    const kv::PageFormat& f = keys.spec->format;
    const int d = f.head_size;
    const auto exact_rows = [&](const half_t* rows, int n, int at) {
        kernels.score_exact(rows, n, d, q, n_rows, scores + at, kChunk);
    };
    for_each_run(
        kernels, keys, begin, end, tile,
        [&](const kv::PageRef& ref, const uint8_t* page, int first, int n, int at) {
            enter_frame(args, keys, ref.frame, n_rows);
            if (f.blocks()) {
                score_blocks(kernels, keys, page, first, n, at, n_rows);
            } else if (f.quantized()) {
                score_page(kernels, keys, page, first, n, at, n_rows);
            } else {
                kernels.score_exact(reinterpret_cast<const half_t*>(page) + static_cast<ptrdiff_t>(first) * d, n, d,
                                    q_framed, n_rows, scores + at, kChunk);
            }
        },
        exact_rows);
    if (begin < keys.n_sinks) {
        exact_rows(keys.sinks + static_cast<ptrdiff_t>(begin) * d, std::min(end, keys.n_sinks) - begin, 0);
    }
}

// Computes value_scale and value_zero [channel group, 32 tokens] from `token` on: v = value_scale * code + value_zero.
void Attention::Scratch::decode_value_scales(const Kernels& kernels, const SideView& values, const uint8_t* page,
                                             int token) {
    const kv::PageFormat& f = values.spec->format;
    const float factor = std::ldexp(1.0f, values.table->exponent);
    if (f.scale_kind == kv::ScaleKind::byte_token) {
        kernels.decode_byte_scales(page + f.scales_offset + token, kValueTokens, factor, value_scale);
        for (int t = 0; t < kValueTokens; ++t) {
            value_zero[t] = -1.5f * value_scale[t];  // level = code - 3/2
        }
        return;
    }
    for (int t = 0; t < kValueTokens; ++t) {
        for (int g = 0; g < f.scale_groups; ++g) {
            const size_t from = static_cast<size_t>(token + t) * f.scale_groups + g;
            float& s = value_scale[g * kValueTokens + t];
            float& z = value_zero[g * kValueTokens + t];
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

// Accumulates p v of tokens [first, first + n) of a page. scores holds p from `at` on.
void Attention::Scratch::accumulate_page(const Kernels& kernels, const SideView& values, const uint8_t* page, int first,
                                         int n, int at, int n_rows) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    const int n_blocks = d / kv::kValueBlockChannels;
    const float middle = 0.5f * static_cast<float>((1 << f.bits) - 1);
    constexpr int kBlocks = kValueTokens / kv::kValueBlockTokens;
    for (int token = first / kValueTokens * kValueTokens; token < first + n; token += kValueTokens) {
        // codes[token quad, channel, token of the quad]
        for (int b = 0; b < kBlocks; ++b) {
            const size_t block = static_cast<size_t>(token / kv::kValueBlockTokens + b) * n_blocks;
            kernels.unpack_codes(page + block * f.block_bytes(), n_blocks, f.block_bytes(), f.bits,
                                 codes + b * kv::kValueBlockTokens * d, 32, 4 * d);
        }
        decode_value_scales(kernels, values, page, token);
        const int from = std::max(first, token);
        const int to = std::min(first + n, token + kValueTokens);
        const bool whole = to - from == kValueTokens;
        const float* p = whole ? scores + at + from - first : part;
        const int stride = whole ? kChunk : kValueTokens;
        for (int r = 0; r < n_rows && !whole; ++r) {
            std::fill_n(part + r * kValueTokens, kValueTokens, 0.0f);
            std::copy_n(scores + r * kChunk + at + from - first, to - from, part + r * kValueTokens + from - token);
        }
        for (int g = 0; g < f.scale_groups; ++g) {
            const int begin = g * f.group;
            const int end = f.scale_groups == 1 ? d : std::min(d, begin + f.group);
            kernels.fold(p, stride, n_rows, value_scale + g * kValueTokens, value_zero + g * kValueTokens, middle,
                         kValueTokens, folded, step, bias);
            kernels.dot_codes(codes + 4 * begin, 4 * d, kValueTokens / 4, end - begin, folded, kValueTokens, step, bias,
                              n_rows, coded + begin, d);
        }
    }
    for (int r = 0; r < n_rows; ++r) {
        mass[r] += kernels.sum(scores + r * kChunk + at, n);
    }
}

// The same for pages of q8_0 or q4_0. The sum stays rotated.
void Attention::Scratch::accumulate_blocks(const Kernels& kernels, const SideView& values, const uint8_t* page,
                                           int first, int n, int at, int n_rows) {
    const kv::PageFormat& f = values.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(kv::block_type(f), page + (first + t) * f.row_bytes(), n_tile * f.head_size, tile);
        kernels.accumulate_exact(tile, n_tile, f.head_size, scores + at + t, kChunk, n_rows, coded);
    }
}

void Attention::Scratch::accumulate(const Kernels& kernels, const SideView& values, int begin, int end, int n_rows) {
    const int d = values.spec->format.head_size;
    const auto exact_rows = [&](const half_t* rows, int n, int at) {
        kernels.accumulate_exact(rows, n, d, scores + at, kChunk, n_rows, exact);
    };
    if (begin < values.n_sinks) {
        const int n = std::min(end, values.n_sinks) - begin;
        exact_rows(values.sinks + static_cast<ptrdiff_t>(begin) * d, n, 0);
        for (int r = 0; r < n_rows; ++r) {
            std::fill_n(scores + r * kChunk, n, 0.0f);  // page or ring also have rows for the sinks
        }
    }
    for_each_run(
        kernels, values, begin, end, tile,
        [&](const kv::PageRef&, const uint8_t* page, int first, int n, int at) {
            if (values.spec->format.blocks()) {
                accumulate_blocks(kernels, values, page, first, n, at, n_rows);
            } else if (values.spec->format.quantized()) {
                accumulate_page(kernels, values, page, first, n, at, n_rows);
            } else {
                exact_rows(reinterpret_cast<const half_t*>(page) + static_cast<ptrdiff_t>(first) * d, n, at);
            }
        },
        exact_rows);
}

// Writes out[D] = sum of p v of a row, not divided by the sum of p.
void Attention::Scratch::finish(const SideView& values, int row, float* out) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    float* quantized = coded + row * d;
    if (f.blocks()) {
        kv::hadamard(quantized, d);
    } else if (f.scale_kind == kv::ScaleKind::byte_token && mass[row] > 0) {
        kv::hadamard(quantized, d);
        for (int c = 0; c < d; ++c) {
            quantized[c] += mass[row] * half_to_float(values.table->mu[c]);
        }
    }
    for (int c = 0; c < d; ++c) {
        out[c] = exact[row * d + c] + quantized[c];
    }
}

Attention::Attention(const Kernels& kernels, int n_threads) : kernels_(kernels) {
    for (int i = 0; i < n_threads; ++i) {
        scratch_.push_back(std::make_unique<Scratch>());
    }
}

Attention::~Attention() = default;

void Attention::plan(const AttentionArgs& args, int n_threads) {
    tasks_.clear();
    const kv::CacheConfig& config = args.cache->config();
    const int group = args.n_head / config.n_head_kv;
    const int block = std::max(1, kTaskRows / group);
    int n_units = 0;
    for (const kv::Segment& s : args.segments) {
        n_units += config.n_head_kv * ((s.n_rows + block - 1) / block);
    }
    const int wanted =
        n_threads == 1 ? 1 : (4 * n_threads + n_units - 1) / n_units;  // splits for about four tasks per thread
    int partial = 0;
    for (size_t i = 0; i < args.segments.size(); ++i) {
        const kv::Segment& s = args.segments[i];
        const int past = args.cache->length(s.seq);
        for (int token = 0; token < s.n_rows; token += block) {
            const int n_tokens = std::min(block, s.n_rows - token);
            const int end = past + token + n_tokens;
            const int n_splits = std::clamp(end / kMinSplit, 1, wanted);
            const int width = (end / n_splits + kv::kPageTokens - 1) / kv::kPageTokens * kv::kPageTokens;
            const int n_tasks = (end + width - 1) / width;
            for (int head = 0; head < config.n_head_kv; ++head) {
                for (int split = 0; split < n_tasks; ++split) {
                    const bool whole = n_tasks == 1;
                    tasks_.push_back({static_cast<int>(i), head, token, n_tokens, split * width,
                                      std::min(end, (split + 1) * width), whole ? -1 : partial,
                                      split == 0 ? n_tasks : 0});
                    partial += whole ? 0 : n_tokens * group;
                }
            }
        }
    }
    const size_t width = config.head_size + 2;
    if (partial_.size() < partial * width) {
        partial_.resize(partial * width);
    }
}

void Attention::run_task(const AttentionArgs& args, const Task& task, Scratch& s) {
    const kv::CacheConfig& config = args.cache->config();
    const kv::Segment& segment = args.segments[task.segment];
    const SideView keys = args.cache->view(kv::Side::keys, segment, args.layer, task.head);
    const SideView values = args.cache->view(kv::Side::values, segment, args.layer, task.head);
    const int d = config.head_size;
    const int group = args.n_head / config.n_head_kv;
    const int n_rows = task.n_tokens * group;
    const int past = keys.length();
    // Row r: query token r / group, query head r % group of the KV head.
    const auto offset = [&](int r) {
        const ptrdiff_t row = segment.row + task.token + r / group;
        return (row * args.n_head + task.head * group + r % group) * d;
    };
    for (int r = 0; r < n_rows; ++r) {
        const float* q = args.q + offset(r);
        for (int c = 0; c < d; ++c) {
            s.q[r * d + c] = q[c] * args.scale;
        }
    }
    s.start(d, n_rows);

    for (int begin = task.begin; begin < task.end; begin += kChunk) {
        const int end = std::min(begin + kChunk, task.end);
        const int n = end - begin;
        s.score(kernels_, args, keys, begin, end, n_rows);
        for (int r = 0; r < n_rows; ++r) {
            float* scores = s.scores + r * kChunk;
            const int position = past + task.token + r / group;
            const int visible = std::min(n, position + 1 - begin);
            const int hidden = args.window > 0 ? std::max(0, position + 1 - args.window - begin) : 0;
            if (visible <= hidden) {
                std::fill_n(scores, n, 0.0f);
                continue;
            }
            const float top = std::max(s.max[r], kernels_.max(scores + hidden, visible - hidden));
            const float keep = std::exp(s.max[r] - top);
            if (keep != 1.0f) {
                kernels_.scale(s.exact + r * d, d, keep);
                kernels_.scale(s.coded + r * d, d, keep);
                s.mass[r] *= keep;
                s.sum[r] *= keep;
            }
            s.max[r] = top;
            s.sum[r] += kernels_.softmax_part(scores + hidden, visible - hidden, top);
            std::fill_n(scores, hidden, 0.0f);
            std::fill_n(scores + visible, n - visible, 0.0f);
        }
        s.accumulate(kernels_, values, begin, end, n_rows);
    }

    for (int r = 0; r < n_rows; ++r) {
        if (task.partial >= 0) {
            float* out = partial_.data() + static_cast<ptrdiff_t>(task.partial + r) * (d + 2);
            s.finish(values, r, out);
            out[d] = s.max[r];
            out[d + 1] = s.sum[r];
        } else {
            float* out = args.out + offset(r);
            s.finish(values, r, out);
            kernels_.scale(out, d, 1.0f / s.sum[r]);
        }
    }
}

void Attention::merge(const AttentionArgs& args, const Task& task) {
    const kv::CacheConfig& config = args.cache->config();
    const int d = config.head_size;
    const int group = args.n_head / config.n_head_kv;
    const int n_rows = task.n_tokens * group;
    const kv::Segment& segment = args.segments[task.segment];
    for (int r = 0; r < n_rows; ++r) {
        const auto part = [&](int split) {
            return partial_.data() + static_cast<ptrdiff_t>(task.partial + split * n_rows + r) * (d + 2);
        };
        float top = kMinusInfinity;
        for (int i = 0; i < task.n_splits; ++i) {
            top = std::max(top, part(i)[d]);
        }
        const ptrdiff_t row = segment.row + task.token + r / group;
        float* out = args.out + (row * args.n_head + task.head * group + r % group) * d;
        std::fill_n(out, d, 0.0f);
        float sum = 0;
        for (int i = 0; i < task.n_splits; ++i) {
            const float weight = std::exp(part(i)[d] - top);
            sum += weight * part(i)[d + 1];
            for (int c = 0; c < d; ++c) {
                out[c] += weight * part(i)[c];
            }
        }
        kernels_.scale(out, d, 1.0f / sum);
    }
}

void Attention::run(const AttentionArgs& args, ThreadPool& pool) {
    plan(args, pool.size());
    // Longest tasks first: later query tokens attend to more cache tokens.
    const int n = static_cast<int>(tasks_.size());
    pool.parallel_for(n, [&](int i, int thread) { run_task(args, tasks_[n - 1 - i], *scratch_[thread]); });
    for (const Task& task : tasks_) {
        if (task.partial >= 0 && task.n_splits > 0) {
            merge(args, task);
        }
    }
}

}  // namespace lk::cpu
