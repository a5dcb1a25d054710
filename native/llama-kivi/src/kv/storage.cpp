#include "kv/storage.h"

#include <algorithm>
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
#include "kv/mark.h"
#include "kv/pool.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

RingSlot::RingSlot(const SideSpec& spec, bool on_host) {
    sinks = aligned(spec.ring_bytes());
    tables[0] = sinks + aligned(spec.sink_bytes());
    tables[1] = tables[0] + (on_host ? 0 : aligned(spec.head_count() * spec.table_bytes()));
    bytes = 2 * tables[1] - tables[0];
}

SidePools::SidePools(const SideSpec& spec, Memory& memory)
    : pages(memory, spec.block_bytes()), rings(memory, RingSlot(spec, memory.on_host()).bytes) {}

SequenceSide::SequenceSide(const SideSpec& spec, SidePools& pools)
    : spec_(&spec), pools_(&pools), places_(spec, pools.rings.memory().on_host()), layout_(spec) {}

SequenceSide::SequenceSide(const SequenceSide& other)
    : spec_(other.spec_),
      pools_(other.pools_),
      places_(other.places_),
      layout_(other.layout_),
      tables_(other.tables_),
      table_(other.table_) {
    if (other.slot_) {
        slot_ = pools_->rings.copy(other.slot_);
    }
    // An unfinished block is copied, because either sequence may write to it.
    if (!layout_.pages.empty() && layout_.pages.back().end() < kPageTokens) {
        own_last_block();
    }
}

// Replaces the last block by a copy. A cut in the middle of the block has left several runs of it, the last of the
// sequence.
void SequenceSide::own_last_block() {
    const std::shared_ptr<PageBlock> block = layout_.pages.back().block;
    const auto copied = std::make_shared<PageBlock>(pools_->pages.copy(block->data));
    for (auto page = layout_.pages.rbegin(); page != layout_.pages.rend() && page->block == block; ++page) {
        page->block = copied;
    }
}

size_t SequenceSide::fixed_bytes() const {
    size_t tables = tables_.size() * sizeof(HeadTable);
    for (const HeadTable& t : tables_) {
        tables += t.refined.size() * sizeof(uint16_t) + (t.mu.size() + t.centre.size()) * sizeof(half_t);
    }
    return slot_.bytes() + tables;
}

size_t SequenceSide::owned_bytes() const {
    size_t bytes = slot_.bytes();
    const std::vector<PageRef>& pages = layout_.pages;
    for (size_t first = 0, end = 0; first < pages.size(); first = end) {
        while (end < pages.size() && pages[end].block == pages[first].block) {
            ++end;
        }
        bytes += pages[first].block.use_count() == static_cast<long>(end - first) ? spec_->block_bytes() : 0;
    }
    return bytes;
}

size_t SequenceSide::copy_bytes() const {
    const bool unfinished = !layout_.pages.empty() && layout_.pages.back().end() < kPageTokens;
    return slot_.bytes() + (unfinished ? spec_->block_bytes() : 0);
}

size_t SequenceSide::append_bytes(int n_rows) const {
    const size_t blocks = layout_.new_blocks(n_rows) + (append_copies(n_rows) > 0 ? 1 : 0);
    return (slot_ ? 0 : places_.bytes) + blocks * spec_->block_bytes();
}

int SequenceSide::append_copies(int n_rows) const {
    int tokens = 0;
    if (layout_.leaving(n_rows) > 0 && layout_.continues_shared()) {
        const std::vector<PageRef>& pages = layout_.pages;
        for (auto page = pages.rbegin(); page != pages.rend() && page->block == pages.back().block; ++page) {
            tokens += page->count;
        }
    }
    return tokens;
}

SideView SequenceSide::view(int layer, int head, int n_rows) const {
    const size_t i = index(layer, head);
    const size_t d = spec_->format.head_size;
    SideView v{};
    v.spec = spec_;
    v.table = tables_.empty() ? nullptr : &tables_[i];
    v.pages = layout_.pages;
    v.page_offset = i * spec_->format.page_bytes;
    v.sinks = sinks() + i * spec_->sinks * d;
    const uint8_t* const ring = slot_.data() + i * spec_->ring_rows() * spec_->ring_row_bytes();
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
    drop_unused();
}

void SequenceSide::truncate(int n_keep) {
    layout_.truncate(n_keep);
    drop_unused();
}

// Gives the memory of an empty side back, and drops head tables that the next flush chooses again.
void SequenceSide::drop_unused() noexcept {
    if (length() == 0) {
        clear();
    } else if (!layout_.tables_chosen) {
        for (HeadTable& table : tables_) {
            table = {};
        }
    }
}

void SequenceSide::clear() noexcept {
    slot_ = {};
    std::vector<HeadTable>().swap(tables_);
}

SideMark SequenceSide::mark() const {
    SideMark mark{layout_, std::vector<uint8_t>(spec_->ring_bytes())};
    mark.layout.pages = {};
    memory().read(mark.ring.data(), slot_.data(), mark.ring.size());
    return mark;
}

void SequenceSide::rewind(const SideMark& mark) {
    memory().write(slot_.data(), mark.ring.data(), mark.ring.size());
    layout_.drop_paged(mark.layout.n_paged);
    std::vector<PageRef> pages = std::move(layout_.pages);
    layout_ = mark.layout;
    layout_.pages = std::move(pages);
    drop_unused();
}

const SequenceMark* Sequence::mark_for(int length) const {
    const auto mark = std::find_if(marks.begin(), marks.end(),
                                   [&](const auto& m) { return m->exact_from() <= length && length <= m->length(); });
    return mark != marks.end() ? mark->get() : nullptr;
}

void Sequence::truncate(int n_keep) {
    if (n_keep >= length()) {
        return;
    }
    if (const SequenceMark* const mark = n_keep < exact_from() ? mark_for(n_keep) : nullptr; mark != nullptr) {
        k.rewind(mark->k);
        v.rewind(mark->v);
    }
    k.truncate(n_keep);
    v.truncate(n_keep);
    std::erase_if(marks, [&](const auto& m) { return m->length() > n_keep; });
}

// Moves sink and ring rows, and rotates keys among them to their new positions.
void SequenceSide::move_exact(int begin, int end, const Rotation& rotation) {
    const size_t d = spec_->format.head_size;
    const bool blocks = spec_->ring_in_blocks();
    const size_t row_bytes = spec_->ring_row_bytes();
    const int n_rows = spec_->ring_rows();
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
    std::vector<uint8_t> ring(n_rows * row_bytes);
    std::vector<half_t> all_sinks(spec_->sink_elements());
    std::vector<uint8_t> all_rings(spec_->ring_bytes());
    memory().read(all_sinks.data(), at(places_.sinks), spec_->sink_bytes());
    memory().read(all_rings.data(), slot_.data(), spec_->ring_bytes());
    for (size_t head = 0; head < spec_->head_count(); ++head) {
        half_t* sinks = all_sinks.data() + head * spec_->sinks * d;
        for (int i = begin + removed; i < n_sink_rows && removed > 0; ++i) {
            load(sinks + i * d, end - begin);
            store(sinks + (i - removed) * d);
        }
        uint8_t* old = all_rings.data() + head * n_rows * row_bytes;
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
    memory().write(at(places_.sinks), all_sinks.data(), spec_->sink_bytes());
    memory().write(slot_.data(), all_rings.data(), spec_->ring_bytes());
}

void SequenceSide::make_ready() {
    if (slot_) {
        return;
    }
    std::vector<HeadTable> tables(memory().on_host() ? spec_->head_count() : 0);
    slot_ = pools_->rings.take();
    tables_ = std::move(tables);
}

void SequenceSide::reserve(int n_rows) {
    make_ready();
    drop_staged();
    if (layout_.leaving(n_rows) > 0 && layout_.continues_shared()) {
        own_last_block();
    }
    layout_.place(n_rows, staged_pages_);
    if (staged_pages_.empty()) {
        return;
    }
    for (PageRef& run : staged_pages_) {
        if (run.block == nullptr) {
            run.block = std::make_shared<PageBlock>(pools_->pages.take());
        }
    }
    layout_.pages.reserve(layout_.pages.size() + staged_pages_.size());
    if (layout_.tables_chosen || !has_table(spec_->format)) {
        return;
    }
    if (memory().on_host()) {
        staged_tables_.resize(spec_->head_count());
        for (HeadTable& table : staged_tables_) {
            reserve_lists(spec_->format, table);
        }
    } else {
        stages_tables_ = true;
    }
}

void SequenceSide::drop_staged() noexcept {
    staged_pages_.clear();
    std::vector<HeadTable>().swap(staged_tables_);
    stages_tables_ = false;
}

void SequenceSide::release_reserved() noexcept {
    drop_staged();
    if (length() == 0) {
        clear();
    }
}

AppendPlan SequenceSide::plan_append(int n_rows) noexcept {
    AppendPlan plan{};
    plan.ring = spec_->ring_in_blocks() ? nullptr : reinterpret_cast<half_t*>(slot_.data());
    plan.ring_blocks = spec_->ring_in_blocks() ? slot_.data() : nullptr;
    plan.sinks = reinterpret_cast<half_t*>(at(places_.sinks));
    plan.head_tables = staged_tables_.empty() ? tables_ : staged_tables_;
    plan.tables = at(places_.tables[stages_tables_ ? 1 - table_ : table_]);
    plan.pages = staged_pages_;
    plan.ring_start = layout_.ring_start;
    plan.n_ring = layout_.n_ring;
    plan.n_rows = n_rows;
    plan.n_leave = layout_.leaving(n_rows);
    plan.first_kept = layout_.first_kept(n_rows);
    plan.first_token = layout_.n_paged;
    plan.sink_limit = layout_.sink_limit();
    plan.choose_tables = !staged_tables_.empty() || stages_tables_;
    return plan;
}

void SequenceSide::finish_append(int n_rows) noexcept {
    layout_.append(n_rows, staged_pages_);
    if (!staged_tables_.empty()) {
        tables_.swap(staged_tables_);
    }
    if (stages_tables_) {
        table_ = 1 - table_;
    }
    drop_staged();
}

}  // namespace lk::kv
