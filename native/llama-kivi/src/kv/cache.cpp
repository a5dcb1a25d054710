#include "kv/cache.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "base/error.h"
#include "base/finite.h"

namespace lk::kv {

Cache::Cache(const CacheConfig& config, Memory& memory)
    : config_((config.validate(), config)),
      memory_(&memory),
      k_spec_(make_side_spec(config, Side::keys)),
      v_spec_(make_side_spec(config, Side::values)),
      live_bytes_(std::make_unique<std::atomic<int64_t>>(0)) {
    sequences_.reserve(config.n_seq_max);
    for (int i = 0; i < config.n_seq_max; ++i) {
        sequences_.push_back(
            {SequenceSide(k_spec_, memory, live_bytes_.get()), SequenceSide(v_spec_, memory, live_bytes_.get())});
        if (i < config.ready_sequences()) {
            sequences_.back().k.make_ready();
            sequences_.back().v.make_ready();
        }
    }
    const size_t staged = static_cast<size_t>(config.n_layer) * config.n_head_kv * config.n_ubatch * config.head_size;
    staged_k_ = Buffer<half_t>(memory, staged);
    staged_v_ = Buffer<half_t>(memory, staged);
}

void Cache::truncate(int seq, int n_keep) {
    sequences_[seq].k.truncate(n_keep);
    sequences_[seq].v.truncate(n_keep);
}

Sequence Cache::removed(int seq, int begin, int end, const Rotation& rotation) const {
    Sequence changed(sequences_[seq]);
    changed.k.remove(begin, end, rotation);
    changed.v.remove(begin, end, rotation);
    return changed;
}

void Cache::reserve(std::span<const Segment> segments) {
    try {
        for (const Segment& s : segments) {
            sequences_[s.seq].k.reserve(s.n_rows);
            sequences_[s.seq].v.reserve(s.n_rows);
        }
    } catch (const std::bad_alloc&) {
        release_reserved(segments);
        const unsigned long long bytes = k_spec_.block_bytes() + v_spec_.block_bytes();
        throw Error(LK_OUT_OF_MEMORY,
                    format("out of memory: cannot allocate the cache's memory of a sequence; pages of 128 tokens take "
                           "%llu bytes",
                           bytes),
                    bytes);
    }
}

void Cache::release_reserved(std::span<const Segment> segments) {
    for (const Segment& s : segments) {
        sequences_[s.seq].k.release_reserved();
        sequences_[s.seq].v.release_reserved();
    }
}

namespace {

// A row as its page will give it back. False if a rotated element is beyond the range of halves, in which attention
// reads them.
bool round_to_blocks(const PageFormat& f, half_t* row, ToHalf to_half) {
    static constexpr float kLargest = 65504.0f;
    float x[kMaxHeadSize];
    uint8_t blocks[kMaxHeadSize / 32 * sizeof(BlockQ8_0)];
    std::transform(row, row + f.head_size, x, half_to_float);
    quantize_rows(f, {}, x, 1, 0, 0, blocks);
    dequantize_row(block_type(f), blocks, x, f.head_size);
    const bool fits = std::all_of(x, x + f.head_size, [](float v) { return std::fabs(v) <= kLargest; });
    hadamard(x, f.head_size);
    std::transform(x, x + f.head_size, x, [](float v) { return std::clamp(v, -kLargest, kLargest); });
    to_half(x, f.head_size, row);
    return fits;
}

}  // namespace

void fail_staged(Side side, int layer, bool finite) {
    const char* const what = side == Side::keys ? "key" : "value";
    LK_CHECK(finite, LK_NUMERIC_ERROR, "layer %d gave a %s that is NaN or infinite", layer, what);
    LK_FAIL(LK_NUMERIC_ERROR,
            "layer %d gave a %s beyond 65504, the range of the cache's 16-bit floats: the weights may not belong to a "
            "working model (a damaged or wrongly converted file)",
            layer, what);
}

void Cache::stage(Side side, int layer, int n_rows, const float* rows, ToHalf to_half) {
    constexpr half_t kInfinity = 0x7c00;
    const size_t d = config_.head_size;
    Buffer<half_t>& staged = staging(side);
    const PageFormat& f = spec(side).format;
    for (int h = 0; h < config_.n_head_kv; ++h) {
        half_t* out = staged.data() + (static_cast<size_t>(layer) * config_.n_head_kv + h) * config_.n_ubatch * d;
        for (int i = 0; i < n_rows; ++i, out += d) {
            const float* const row = rows + (static_cast<size_t>(i) * config_.n_head_kv + h) * d;
            to_half(row, static_cast<int64_t>(d), out);
            bool broken = false;
            for (size_t c = 0; c < d; ++c) {
                broken |= (out[c] & kInfinity) == kInfinity;
            }
            if (broken || (f.blocks() && !round_to_blocks(f, out, to_half))) {
                fail_staged(side, config_.first_layer + layer, std::all_of(row, row + d, is_finite));
            }
        }
    }
}

SideView Cache::view(Side side, const Segment& segment, int layer, int head) const {
    SideView v = sequences_[segment.seq].side(side).view(layer, head);
    const Buffer<half_t>& staged = side == Side::keys ? staged_k_ : staged_v_;
    v.staged =
        staged.data() +
        ((static_cast<size_t>(layer) * config_.n_head_kv + head) * config_.n_ubatch + segment.row) * config_.head_size;
    v.n_staged = segment.n_rows;
    return v;
}

void Cache::prepare_commit(std::span<const Segment> segments, int n_threads) {
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(n_threads)));
    for (int i = 0; i < n_threads; ++i) {
        for (const Segment& segment : segments) {
            sequences_[segment.seq].k.reserve_scratch(segment.n_rows, scratch_[i]);
            sequences_[segment.seq].v.reserve_scratch(segment.n_rows, scratch_[i]);
        }
    }
}

void Cache::commit(std::span<const Segment> segments, ThreadPool& pool) noexcept {
    const int n_heads = config_.n_layer * config_.n_head_kv;
    for (const Segment& segment : segments) {
        Sequence& s = sequences_[segment.seq];
        pool.parallel_for(n_heads, [&](int task, int thread) noexcept {
            const int layer = task / config_.n_head_kv;
            const int head = task % config_.n_head_kv;
            const size_t offset = (static_cast<size_t>(task) * config_.n_ubatch + segment.row) * config_.head_size;
            s.k.append(layer, head, staged_k_.data() + offset, segment.n_rows, scratch_[thread]);
            s.v.append(layer, head, staged_v_.data() + offset, segment.n_rows, scratch_[thread]);
        });
    }
    finish_append(segments);
}

AppendPlan Cache::plan_append(Side side, const Segment& segment) {
    return sequences_[segment.seq].side(side).plan_append(segment.n_rows);
}

void Cache::finish_append(std::span<const Segment> segments) noexcept {
    for (const Segment& segment : segments) {
        sequences_[segment.seq].k.finish_append(segment.n_rows);
        sequences_[segment.seq].v.finish_append(segment.n_rows);
    }
}

}  // namespace lk::kv
