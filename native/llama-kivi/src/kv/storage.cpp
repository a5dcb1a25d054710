#include "kv/storage.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "kv/bookkeeping.h"
#include "kv/config.h"
#include "kv/kivi_format.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

PageBlock::PageBlock(Memory& memory, size_t bytes, std::atomic<int64_t>* live)
    : PageBlock(Buffer<uint8_t>(memory, bytes), live) {}

PageBlock::PageBlock(Buffer<uint8_t> content, std::atomic<int64_t>* live) : data(std::move(content)), live_bytes(live) {
    live_bytes->fetch_add(static_cast<int64_t>(data.bytes()), std::memory_order_relaxed);
}

PageBlock::~PageBlock() {
    live_bytes->fetch_sub(static_cast<int64_t>(data.bytes()), std::memory_order_relaxed);
}

SequenceSide::SequenceSide(const SideSpec& spec, Memory& memory, std::atomic<int64_t>* live_bytes)
    : spec_(&spec), memory_(&memory), live_bytes_(live_bytes), layout_(spec) {}

SequenceSide::SequenceSide(const SequenceSide& other)
    : spec_(other.spec_),
      memory_(other.memory_),
      live_bytes_(other.live_bytes_),
      layout_(other.layout_),
      ring_(other.ring_),
      sinks_(other.sinks_),
      tables_(other.tables_),
      raw_tables_(other.raw_tables_) {
    // An unfinished block is copied, because either sequence may write to it.
    if (!layout_.pages.empty() && layout_.pages.back().end() < kPageTokens) {
        const std::shared_ptr<PageBlock> block = layout_.pages.back().block;
        const auto copied = std::make_shared<PageBlock>(block->data, live_bytes_);
        // A cut in the middle of the block has left several runs of it, the last of the sequence.
        for (auto page = layout_.pages.rbegin(); page != layout_.pages.rend() && page->block == block; ++page) {
            page->block = copied;
        }
    }
}

size_t SequenceSide::fixed_bytes() const {
    size_t tables = tables_.size() * sizeof(HeadTable) + raw_tables_.bytes();
    for (const HeadTable& t : tables_) {
        tables += t.refined.size() * sizeof(uint16_t) + (t.mu.size() + t.centre.size()) * sizeof(half_t);
    }
    return ring_.bytes() + sinks_.bytes() + tables;
}

SideView SequenceSide::view(int layer, int head, int n_rows) const {
    const size_t i = index(layer, head);
    const size_t d = spec_->format.head_size;
    SideView v{};
    v.spec = spec_;
    v.table = tables_.empty() ? nullptr : &tables_[i];
    v.pages = layout_.pages;
    v.page_offset = i * spec_->format.page_bytes;
    v.sinks = sinks_.data() + i * spec_->sinks * d;
    const uint8_t* const ring = ring_.data() + i * spec_->ageing.trigger * spec_->ring_row_bytes();
    v.ring = spec_->ring_in_blocks() ? nullptr : reinterpret_cast<const half_t*>(ring);
    v.ring_blocks = spec_->ring_in_blocks() ? ring : nullptr;
    v.n_paged = layout_.n_paged;
    v.n_sinks = layout_.sink_rows();
    v.ring_start = layout_.ring_start;
    v.n_ring = layout_.n_ring;
    v.staged_table = staged_tables_.empty() ? v.table : &staged_tables_[i];
    if (n_rows > 0) {
        v.staged_pages = staged_pages_;
        v.n_leaving = layout_.leaving(n_rows);
    }
    v.n_sinks_after = layout_.sinks_after(n_rows);
    return v;
}

void SequenceSide::remove(int begin, int end, const Rotation& rotation) {
    end = std::min(end, length());
    if (begin >= end) {
        return;
    }
    if (end < length()) {
        move_exact(begin, end, rotation);
    }
    layout_.remove(begin, end);
}

// Moves sink and ring rows, and rotates keys among them to their new positions.
void SequenceSide::move_exact(int begin, int end, const Rotation& rotation) {
    const size_t d = spec_->format.head_size;
    const bool blocks = spec_->ring_in_blocks();
    const size_t row_bytes = spec_->ring_row_bytes();
    const int trigger = spec_->ageing.trigger;
    std::vector<half_t> halves(d);
    std::vector<float> row(d);
    // Loads a row into `row` and rotates a key back by `by` positions.
    const auto load = [&](const half_t* from, int by) {
        std::transform(from, from + d, row.begin(), half_to_float);
        if (by != 0 && spec_->format.side == Side::keys) {
            rotate_heads(rotation, -by, row.data(), 1, static_cast<int>(d));
        }
    };
    const auto store = [&](half_t* to) { std::transform(row.begin(), row.end(), to, float_to_half); };

    SideLayout after = layout_;
    after.remove(begin, end);
    const int n_sink_rows = layout_.sink_rows();
    const int removed = std::max(0, std::min(end, n_sink_rows) - begin);
    std::vector<uint8_t> ring(trigger * row_bytes);
    std::vector<half_t> all_sinks(sinks_.size());
    std::vector<uint8_t> all_rings(ring_.size());
    memory_->read(all_sinks.data(), sinks_.data(), sinks_.bytes());
    memory_->read(all_rings.data(), ring_.data(), ring_.bytes());
    for (size_t head = 0; head < spec_->head_count(); ++head) {
        half_t* sinks = all_sinks.data() + head * spec_->sinks * d;
        for (int i = begin + removed; i < n_sink_rows && removed > 0; ++i) {
            load(sinks + i * d, end - begin);
            store(sinks + (i - removed) * d);
        }
        uint8_t* old = all_rings.data() + head * trigger * row_bytes;
        int kept = 0;
        for (int i = 0; i < layout_.n_ring; ++i) {
            const int token = layout_.n_paged + i;
            if (token >= begin && token < end) {
                continue;
            }
            const uint8_t* const from = old + layout_.ring_row(i) * row_bytes;
            uint8_t* const to = ring.data() + kept * row_bytes;
            const int by = token >= end ? end - begin : 0;
            if (blocks) {
                decode_q8_row(from, static_cast<int>(d), halves.data());
            }
            load(blocks ? halves.data() : reinterpret_cast<const half_t*>(from), by);
            if (by == 0 || spec_->format.side == Side::values) {
                std::copy_n(from, row_bytes, to);  // rounding again could change the row
            } else if (blocks) {
                encode_q8_row(row.data(), static_cast<int>(d), to);
            } else {
                store(reinterpret_cast<half_t*>(to));
            }
            // A token that moved below S is a sink from now on.
            const int position = after.n_paged + kept++;
            if (position >= n_sink_rows - removed && position < after.sink_rows()) {
                store(sinks + position * d);
            }
        }
        std::copy_n(ring.data(), kept * row_bytes, old);
    }
    memory_->write(sinks_.data(), all_sinks.data(), sinks_.bytes());
    memory_->write(ring_.data(), all_rings.data(), ring_.bytes());
}

void SequenceSide::make_ready() {
    if (ring_.size() > 0) {
        return;
    }
    const bool on_host = memory_->on_host();
    Buffer<half_t> sinks(*memory_, spec_->sink_elements());
    std::vector<HeadTable> tables(on_host ? spec_->head_count() : 0);
    Buffer<uint8_t> raw_tables(*memory_, on_host ? 0 : spec_->head_count() * spec_->table_bytes());
    ring_ = Buffer<uint8_t>(*memory_, spec_->ring_bytes());
    sinks_ = std::move(sinks);
    tables_ = std::move(tables);
    raw_tables_ = std::move(raw_tables);
}

void SequenceSide::reserve(int n_rows) {
    make_ready();
    release_reserved();
    layout_.place(n_rows, staged_pages_);
    if (staged_pages_.empty()) {
        return;
    }
    for (PageRef& run : staged_pages_) {
        if (run.block == nullptr) {
            run.block = std::make_shared<PageBlock>(*memory_, spec_->block_bytes(), live_bytes_);
        }
    }
    layout_.pages.reserve(layout_.pages.size() + staged_pages_.size());
    if (layout_.tables_chosen || !has_table(spec_->format)) {
        return;
    }
    if (memory_->on_host()) {
        staged_tables_.resize(spec_->head_count());
        for (HeadTable& table : staged_tables_) {
            reserve_lists(spec_->format, table);
        }
    } else {
        staged_raw_tables_ = Buffer<uint8_t>(*memory_, spec_->head_count() * spec_->table_bytes());
    }
}

void SequenceSide::release_reserved() noexcept {
    staged_pages_.clear();
    std::vector<HeadTable>().swap(staged_tables_);
    staged_raw_tables_ = {};
}

AppendPlan SequenceSide::plan_append(int n_rows) noexcept {
    AppendPlan plan{};
    plan.ring = spec_->ring_in_blocks() ? nullptr : reinterpret_cast<half_t*>(ring_.data());
    plan.ring_blocks = spec_->ring_in_blocks() ? ring_.data() : nullptr;
    plan.sinks = sinks_.data();
    plan.head_tables = staged_tables_.empty() ? tables_ : staged_tables_;
    plan.tables = staged_raw_tables_.size() > 0 ? staged_raw_tables_.data() : raw_tables_.data();
    plan.pages = staged_pages_;
    plan.ring_start = layout_.ring_start;
    plan.n_ring = layout_.n_ring;
    plan.n_rows = n_rows;
    plan.n_leave = layout_.leaving(n_rows);
    plan.first_token = layout_.n_paged;
    plan.sink_limit = layout_.sink_limit();
    plan.choose_tables = !staged_tables_.empty() || staged_raw_tables_.size() > 0;
    return plan;
}

void SequenceSide::finish_append(int n_rows) noexcept {
    layout_.append(n_rows, staged_pages_);
    if (!staged_tables_.empty()) {
        tables_.swap(staged_tables_);
    }
    if (staged_raw_tables_.size() > 0) {
        std::swap(raw_tables_, staged_raw_tables_);
    }
    release_reserved();
}

}  // namespace lk::kv
