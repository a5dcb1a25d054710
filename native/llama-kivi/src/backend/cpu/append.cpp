#include "backend/cpu/append.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/finite.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/scalar_codec.h"
#include "kv/codec/stock_blocks.h"
#include "quant/blocks.h"

namespace lk::cpu {

namespace {

// Quantizes and dequantizes a row as its page will. Returns false if an element leaves the range of half, in which
// attention reads blocks.
bool round_to_blocks(const kv::PageFormat& f, half_t* row, ToHalf to_half) {
    float x[kv::kMaxHeadSize];
    uint8_t blocks[kv::kMaxHeadSize / 32 * kv::stock_format(LK_CACHE_Q8_0).block_bytes];
    std::transform(row, row + f.head_size, x, half_to_float);
    kv::quantize_rows(f, {}, x, 1, 0, 0, blocks);
    kv::decode_blocks(f.type, blocks, x, f.head_size);
    const bool fits = std::all_of(x, x + f.head_size, [](float v) { return std::fabs(v) <= kv::kLargestHalf; });
    kv::hadamard(x, f.head_size);
    std::transform(x, x + f.head_size, x, [](float v) { return std::clamp(v, -kv::kLargestHalf, kv::kLargestHalf); });
    to_half(x, f.head_size, row);
    return fits;
}

// half_to_float of a finite half, in operations that compilers vectorize.
float finite_half_to_float(half_t h) {
    const float magnitude = bits_as<float>(static_cast<uint32_t>(h & 0x7fffu) << 13) * 0x1p112f;
    return bits_as<float>(bits_as<uint32_t>(magnitude) | static_cast<uint32_t>(h & 0x8000u) << 16);
}

// The rows of an append to one head: ring rows, oldest first, then staged rows.
class HeadRows {
public:
    // staged: [row, D] of the segment.
    HeadRows(const kv::SideSpec& spec, const kv::AppendPlan& plan, size_t head, const half_t* staged)
        : d_(spec.format.head_size),
          ring_rows_(spec.ring_rows()),
          row_bytes_(spec.ring_row_bytes()),
          in_blocks_(spec.ring_in_blocks()),
          ring_((in_blocks_ ? plan.ring_blocks : reinterpret_cast<uint8_t*>(plan.ring)) +
                head * ring_rows_ * row_bytes_),
          start_(plan.ring_start),
          n_ring_(plan.n_ring),
          staged_(staged) {}

    // A row in halves; decoded into scratch[D] if it is in a q8_0 ring.
    const half_t* row(int i, half_t* scratch) const {
        if (i >= n_ring_) {
            return staged_ + (i - n_ring_) * d_;
        }
        if (in_blocks_) {
            kv::decode_q8_row(ring_row(i), static_cast<int>(d_), scratch);
            return scratch;
        }
        return reinterpret_cast<const half_t*>(ring_row(i));
    }
    // Address of row i in the ring, for present and future ring rows.
    uint8_t* ring_row(int i) const { return ring_ + static_cast<size_t>((start_ + i) % ring_rows_) * row_bytes_; }
    void to_floats(int begin, int end, float* out) const {
        half_t scratch[kv::kMaxHeadSize];
        for (int i = begin; i < end; ++i, out += d_) {
            const half_t* const halves = row(i, scratch);
            std::transform(halves, halves + d_, out, finite_half_to_float);
        }
    }

private:
    size_t d_;
    int ring_rows_;
    size_t row_bytes_;
    bool in_blocks_;
    uint8_t* ring_;  // [ring_rows, row_bytes]
    int start_;
    int n_ring_;
    const half_t* staged_;
};

constexpr int kStepRows = 32;  // rows of values or blocks converted to float at a time

// Number of rows to quantize together: a whole key group, or up to kStepRows.
int step_rows(const kv::SideSpec& spec) {
    return std::max(spec.align, kStepRows);
}

// Grows scratch to the size that stage_pages needs for a plan.
void reserve_scratch(const kv::SideSpec& spec, const kv::AppendPlan& plan, QuantizeScratch& scratch) {
    if (plan.n_leave == 0 || !spec.format.quantized()) {
        return;
    }
    const size_t tokens = std::max(plan.choose_tables ? spec.ageing.trigger : 0, step_rows(spec));
    scratch.rows.resize(std::max(scratch.rows.size(), tokens * spec.format.head_size));
    scratch.column.resize(std::max(scratch.column.size(), tokens));
}

// Chooses one head's staged table.
void choose_table(const kv::SideSpec& spec, const kv::AppendPlan& plan, size_t head, const half_t* staged,
                  QuantizeScratch& scratch) noexcept {
    const int n = spec.ageing.trigger;
    HeadRows(spec, plan, head, staged).to_floats(0, n, scratch.rows.data());
    kv::choose_head_table(spec.format, scratch.rows.data(), n, plan.first_token, plan.sink_limit, scratch.column.data(),
                          plan.head_tables[head]);
}

// Copies staged floats into a page of f32 or bf16. Their ring is always empty, so row i is staged row i.
void copy_floats(const kv::PageFormat& f, const float* staged, int first_row, const kv::PageRef& run,
                 uint8_t* page) noexcept {
    const float* const from = staged + static_cast<ptrdiff_t>(first_row) * f.head_size;
    uint8_t* const to = page + run.first * f.row_bytes();
    const int n = run.count * f.head_size;
    if (f.type == LK_CACHE_F32) {
        std::memcpy(to, from, n * sizeof(float));
        return;
    }
    std::transform(from, from + n, reinterpret_cast<uint16_t*>(to), kv::rounded_bf16);
}

// Quantizes one head's leaving rows, from first_row on, into one run of its staged pages.
void stage_run(const kv::SideSpec& spec, const kv::AppendPlan& plan, size_t head, const half_t* staged,
               const kv::PageRef& run, int first_row, QuantizeScratch& scratch) noexcept {
    const kv::PageFormat& f = spec.format;
    const HeadRows rows(spec, plan, head, staged);
    uint8_t* const page = run.block->data.data() + head * f.page_bytes;
    if (f.floats()) {
        copy_floats(f, reinterpret_cast<const float*>(staged), first_row, run, page);
        return;
    }
    float* const floats = scratch.rows.data();
    const bool groups = kv::is_kivi(f.type) && f.side == kv::Side::keys;
    const int step = groups ? f.group : kStepRows;
    for (int i = 0; i < run.count; i += step) {
        const int n = std::min(step, run.count - i);
        const int token = run.first + i;
        const int row = first_row + i;
        if (!f.quantized()) {
            half_t decoded[kv::kMaxHeadSize];
            for (int j = 0; j < n; ++j) {
                std::memcpy(page + (token + j) * f.row_bytes(), rows.row(row + j, decoded), f.row_bytes());
            }
            continue;
        }
        const int sinks = std::clamp(plan.sink_limit - (plan.first_token + row), 0, n);
        rows.to_floats(row, row + n, floats);
        kv::quantize_rows(f, plan.head_tables[head], floats, n, token, sinks, page);
    }
}

// Copies one head's rows into its sinks and its ring. staged_blocks: the staged rows of a q8_0 ring, [row, row_bytes].
void commit_rows(const kv::SideSpec& spec, const kv::AppendPlan& plan, size_t head, const half_t* staged,
                 const uint8_t* staged_blocks) noexcept {
    const size_t d = spec.format.head_size;
    const HeadRows rows(spec, plan, head, staged);
    half_t* const sinks = plan.sinks + head * spec.sinks * d;
    if (spec.ring_in_blocks()) {
        for (int i = plan.n_ring; i < std::min(plan.n_ring + plan.n_rows, plan.sink_limit - plan.first_token); ++i) {
            std::copy_n(staged + (i - plan.n_ring) * d, d, sinks + (plan.first_token + i) * d);
        }
        const size_t row_bytes = spec.ring_row_bytes();
        for (int i = plan.first_kept; i < plan.n_ring + plan.n_rows; ++i) {
            std::copy_n(staged_blocks + (i - plan.n_ring) * row_bytes, row_bytes, rows.ring_row(i));
        }
        return;
    }
    // Sinks first: a new ring row may overwrite the ring row of a sink.
    for (int i = 0; i < plan.new_sinks(); ++i) {
        std::copy_n(rows.row(i, nullptr), d, sinks + (plan.first_token + i) * d);
    }
    for (int i = plan.first_kept; i < plan.n_ring + plan.n_rows; ++i) {
        std::copy_n(rows.row(i, nullptr), d, reinterpret_cast<half_t*>(rows.ring_row(i)));
    }
}

// Stages a row of f32 or bf16. A bf16 row must be finite once it is rounded.
void stage_floats(const kv::PageFormat& f, const float* row, float* out, kv::Side side, int layer) {
    const bool finite = std::all_of(row, row + f.head_size, [&](float x) {
        return is_finite(x) && (f.type == LK_CACHE_F32 || is_finite(bf16_to_float(kv::rounded_bf16(x))));
    });
    if (!finite) {
        kv::fail_staged(side, layer, false);
    }
    std::copy_n(row, f.head_size, out);
}

// The plans of a segment's keys and values.
struct SegmentPlan {
    SegmentPlan(kv::Cache& cache, const kv::Segment& segment) noexcept
        : k(cache.plan_append(kv::Side::keys, segment)), v(cache.plan_append(kv::Side::values, segment)) {}

    kv::AppendPlan k;
    kv::AppendPlan v;
};

const half_t* staged_rows(kv::Cache& cache, kv::Side side, const kv::Segment& segment, int head) {
    const size_t row = static_cast<size_t>(head) * cache.config().n_ubatch + segment.row;
    return cache.staged(side) + row * cache.spec(side).staged_width();
}

// Null unless the side has a q8_0 ring.
const uint8_t* staged_blocks(kv::Cache& cache, kv::Side side, const kv::Segment& segment, int head) {
    const uint8_t* const blocks = cache.staged_blocks(side);
    const size_t row = static_cast<size_t>(head) * cache.config().n_ubatch + segment.row;
    return blocks == nullptr ? nullptr : blocks + row * cache.spec(side).ring_row_bytes();
}

}  // namespace

void stage(kv::Cache& cache, kv::Side side, int layer, int n_rows, const float* rows, ToHalf to_half) {
    constexpr half_t kInfinity = 0x7c00;
    const kv::CacheConfig& config = cache.config();
    const size_t d = config.head_size;
    const kv::SideSpec& spec = cache.spec(side);
    const kv::PageFormat& f = spec.format;
    const size_t row_bytes = spec.ring_row_bytes();
    uint8_t* const all_blocks = cache.staged_blocks(side);
    const bool all_paged = spec.ageing.trigger == 1 && spec.sinks == 0;
    for (int h = 0; h < config.n_head_kv; ++h) {
        const size_t first = (static_cast<size_t>(layer) * config.n_head_kv + h) * config.n_ubatch;
        half_t* out = cache.staged(side) + first * spec.staged_width();
        for (int i = 0; i < n_rows; ++i, out += spec.staged_width()) {
            const float* const row = rows + (static_cast<size_t>(i) * config.n_head_kv + h) * d;
            if (f.floats()) {
                stage_floats(f, row, reinterpret_cast<float*>(out), side, config.first_layer + layer);
                continue;
            }
            to_half(row, static_cast<int64_t>(d), out);
            bool broken = false;
            for (size_t c = 0; c < d; ++c) {
                broken |= (out[c] & kInfinity) == kInfinity;
            }
            if (!broken && all_blocks != nullptr) {
                uint8_t* const blocks = all_blocks + (first + i) * row_bytes;
                kv::encode_q8_row(row, static_cast<int>(d), blocks);
                if (!cache.is_sink_row(side, i)) {
                    float decoded[kv::kMaxHeadSize];
                    kv::decode_q8_row(blocks, static_cast<int>(d), decoded);
                    to_half(decoded, static_cast<int64_t>(d), out);
                }
            }
            if (!broken && f.blocks()) {
                half_t stored[kv::kMaxHeadSize];
                std::copy_n(out, d, stored);
                broken = !round_to_blocks(f, all_paged ? out : stored, to_half);
            }
            if (broken) {
                kv::fail_staged(side, config.first_layer + layer, std::all_of(row, row + d, is_finite));
            }
        }
    }
}

void Append::stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers, ThreadPool& pool) {
    // Elements that are worth waking other threads.
    constexpr int64_t kQuantized = 1 << 10;
    constexpr int64_t kCopied = 1 << 14;
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(pool.size())));
    tables_.clear();
    runs_.clear();
    const int first_head = layers.begin * cache.config().n_head_kv;
    const int n_heads = layers.count() * cache.config().n_head_kv;
    bool parallel = false;
    for (const kv::Segment& segment : segments) {
        for (const kv::Side side : {kv::Side::keys, kv::Side::values}) {
            const kv::SideSpec& spec = cache.spec(side);
            const kv::AppendPlan plan = cache.plan_append(side, segment);
            const half_t* const staged = staged_rows(cache, side, segment, 0);
            for (QuantizeScratch& scratch : scratch_) {
                reserve_scratch(spec, plan, scratch);
            }
            if (plan.choose_tables) {
                tables_.push_back({plan, &spec, staged, nullptr, 0});
            }
            int first_row = 0;
            for (const kv::PageRef& run : plan.pages) {
                runs_.push_back({plan, &spec, staged, &run, first_row});
                first_row += run.count;
            }
            const int64_t elements = static_cast<int64_t>(n_heads) * plan.n_leave * spec.format.head_size;
            parallel |= elements >= (spec.format.quantized() ? kQuantized : kCopied);
        }
    }
    // Nothing can fail from here on: pages are written only by calls that succeed.
    const int n_ubatch = cache.config().n_ubatch;
    const auto for_each_head = [&](const std::vector<Run>& runs, const auto& body) noexcept {
        const int n_tasks = static_cast<int>(runs.size()) * n_heads;
        const auto task = [&](int i, int thread) noexcept {
            const Run& run = runs[i / n_heads];
            const int head = first_head + i % n_heads;
            body(run, head, run.staged + static_cast<size_t>(head) * n_ubatch * run.spec->staged_width(),
                 scratch_[thread]);
        };
        if (parallel) {
            pool.parallel_for(n_tasks, task);
            return;
        }
        for (int i = 0; i < n_tasks; ++i) {
            task(i, 0);
        }
    };
    for_each_head(tables_, [](const Run& run, int head, const half_t* staged, QuantizeScratch& scratch) {
        choose_table(*run.spec, run.plan, head, staged, scratch);
    });
    for_each_head(runs_, [](const Run& run, int head, const half_t* staged, QuantizeScratch& scratch) {
        stage_run(*run.spec, run.plan, head, staged, *run.pages, run.first_row, scratch);
    });
}

void commit(kv::Cache& cache, std::span<const kv::Segment> segments, ThreadPool& pool) noexcept {
    const kv::SideSpec& k = cache.spec(kv::Side::keys);
    const kv::SideSpec& v = cache.spec(kv::Side::values);
    for (const kv::Segment& segment : segments) {
        const SegmentPlan plan(cache, segment);
        if (!plan.k.commits_rows() && !plan.v.commits_rows()) {
            continue;
        }
        pool.parallel_for(cache.config().n_layer * cache.config().n_head_kv, [&](int head, int) noexcept {
            commit_rows(k, plan.k, head, staged_rows(cache, kv::Side::keys, segment, head),
                        staged_blocks(cache, kv::Side::keys, segment, head));
            commit_rows(v, plan.v, head, staged_rows(cache, kv::Side::values, segment, head),
                        staged_blocks(cache, kv::Side::values, segment, head));
        });
    }
    cache.finish_append(segments);
}

}  // namespace lk::cpu
