#include "kv/cache.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/memory.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/mark.h"
#include "kv/rotation.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

Cache::Cache(const CacheConfig& config, Memory& memory)
    : config_((config.validate(), config)),
      k_spec_(make_side_spec(config, Side::keys)),
      v_spec_(make_side_spec(config, Side::values)),
      state_copies_(memory),
      k_pools_(k_spec_, memory, state_copies_),
      v_pools_(v_spec_, memory, state_copies_) {
    sequences_.reserve(config.n_seq_max);
    for (int i = 0; i < config.n_seq_max; ++i) {
        sequences_.push_back({SequenceSide(k_spec_, k_pools_), SequenceSide(v_spec_, v_pools_)});
    }
    const size_t rows = static_cast<size_t>(config.n_layer) * config.n_head_kv * config.n_ubatch;
    staged_k_ = Buffer<half_t>(memory, rows * k_spec_.staged_width());
    staged_v_ = Buffer<half_t>(memory, rows * v_spec_.staged_width());
    if (k_spec_.ring_in_blocks()) {
        blocks_k_ = Buffer<uint8_t>(memory, rows * k_spec_.ring_row_bytes());
        sink_rows_k_.resize(config.n_ubatch);
    }
    if (v_spec_.ring_in_blocks()) {
        blocks_v_ = Buffer<uint8_t>(memory, rows * v_spec_.ring_row_bytes());
        sink_rows_v_.resize(config.n_ubatch);
    }
}

std::shared_ptr<const SequenceMark> Cache::marked(int seq) const {
    const Sequence& s = sequences_[seq];
    return std::make_shared<const SequenceMark>(SequenceMark{s.k.mark(), s.v.mark()});
}

// A mark is at the end of its sequence, and truncation drops longer ones: marks are sorted by length.
void Cache::add_mark(int seq, std::shared_ptr<const SequenceMark> mark) noexcept {
    sequences_[seq].marks.push_back(std::move(mark));
}

void Cache::drop_mark(int seq, int length) {
    std::erase_if(sequences_[seq].marks, [&](const auto& mark) { return mark->length() == length; });
}

Sequence Cache::removed(int seq, int begin, int end, const Rotation& rotation) const {
    Sequence changed(sequences_[seq]);
    changed.k.remove(begin, end, rotation);
    changed.v.remove(begin, end, rotation);
    std::erase_if(changed.marks, [&](const auto& mark) { return mark->length() > begin; });
    return changed;
}

void Cache::mark_sink_rows(std::span<const Segment> segments) {
    for (const Segment& s : segments) {
        for (int i = 0; i < s.n_rows; ++i) {
            const int position = length(s.seq) + i;
            if (!sink_rows_k_.empty()) {
                sink_rows_k_[s.row + i] = position < sequences_[s.seq].k.sink_limit();
            }
            if (!sink_rows_v_.empty()) {
                sink_rows_v_[s.row + i] = position < sequences_[s.seq].v.sink_limit();
            }
        }
    }
}

void Cache::reserve(std::span<const Segment> segments) {
    for (const Segment& s : segments) {
        LK_CHECK(s.n_rows <= config_.n_ubatch - s.row, LK_INTERNAL_ERROR,
                 "a call of %d rows: the cache stages up to %d (n_ubatch)", s.row + s.n_rows, config_.n_ubatch);
    }
    mark_sink_rows(segments);
    try {
        for (const Segment& s : segments) {
            sequences_[s.seq].k.reserve(s.n_rows);
            sequences_[s.seq].v.reserve(s.n_rows);
        }
    } catch (const std::bad_alloc&) {
        release_reserved(segments);
        const unsigned long long bytes = k_spec_.block_bytes() + v_spec_.block_bytes();
        throw Error(LK_OUT_OF_MEMORY,
                    format("out of memory: cannot allocate cache memory for a sequence; pages of 128 tokens take "
                           "%llu bytes",
                           bytes),
                    bytes);
    }
}

void Cache::release_reserved(std::span<const Segment> segments) noexcept {
    for (const Segment& s : segments) {
        sequences_[s.seq].k.release_reserved();
        sequences_[s.seq].v.release_reserved();
    }
}

void fail_staged(Side side, int layer, bool finite) {
    const char* const what = side == Side::keys ? "key" : "value";
    LK_CHECK(finite, LK_NUMERIC_ERROR, "layer %d gave a %s that is NaN or infinite", layer, what);
    LK_FAIL(LK_NUMERIC_ERROR,
            "layer %d gave a %s beyond 65504, the range of the cache's 16-bit floats: the weights may not belong to a "
            "working model (a damaged or wrongly converted file)",
            layer, what);
}

SideView Cache::view(Side side, const Segment& segment, int layer, int head) const {
    SideView v = sequences_[segment.seq].side(side).view(layer, head, segment.n_rows);
    const Buffer<half_t>& staged = side == Side::keys ? staged_k_ : staged_v_;
    const size_t row = (static_cast<size_t>(layer) * config_.n_head_kv + head) * config_.n_ubatch + segment.row;
    v.staged = staged.data() + row * spec(side).staged_width();
    v.n_staged = segment.n_rows;
    return v;
}

void Cache::finish_append(std::span<const Segment> segments) noexcept {
    for (const Segment& segment : segments) {
        sequences_[segment.seq].k.finish_append(segment.n_rows);
        sequences_[segment.seq].v.finish_append(segment.n_rows);
    }
}

}  // namespace lk::kv
