#include "kv/storage.h"

#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "base/staging_buffer.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/config.h"
#include "kv/pool.h"

namespace lk::kv {

RingSlot::RingSlot(const SideSpec& spec, bool on_host) {
    sinks = aligned(spec.ring_bytes());
    tables[0] = sinks + aligned(spec.sink_bytes());
    tables[1] = tables[0] + (on_host ? 0 : aligned(spec.head_count() * spec.table_bytes()));
    bytes = 2 * tables[1] - tables[0];
}

SidePools::SidePools(const SideSpec& spec, Memory& memory, StagingBuffer& staging)
    : pages(memory, spec.block_bytes()), rings(memory, RingSlot(spec, memory.on_host()).bytes), copies(&staging) {}

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

int SequenceSide::rows_to_first_flush() const {
    const bool makes_tables = has_table(spec_->format) && !layout_.tables_chosen;
    const bool makes_sinks = layout_.sink_limit() > layout_.n_sinks;
    const bool reads_own_pages = spec_->format.quantized() && spec_->visibility != Visibility::call;
    return reads_own_pages && (makes_tables || makes_sinks) ? spec_->ageing.trigger - layout_.n_ring : INT_MAX;
}

SideView SequenceSide::view(int layer, int head, int n_rows) const {
    const size_t i = index(layer, head);
    const size_t d = spec_->format.head_size;
    SideView v{};
    v.spec = spec_;
    v.table = tables_.empty() ? nullptr : &tables_[i];
    v.pages = layout_.pages;
    v.page_offset = i * spec_->format.page_bytes;
    if (slot_) {
        v.sinks = sinks() + i * spec_->sinks * d;
        const uint8_t* const ring = slot_.data() + i * spec_->ring_rows() * spec_->ring_row_bytes();
        v.ring = spec_->ring_in_blocks() ? nullptr : reinterpret_cast<const half_t*>(ring);
        v.ring_blocks = spec_->ring_in_blocks() ? ring : nullptr;
    }
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
