// The memory of sequences: page blocks, rings, sinks and head tables. Copies of a sequence share its full blocks. A
// sequence has memory from its first row until it is cleared.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "base/staging_buffer.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/config.h"
#include "kv/mark.h"
#include "kv/pool.h"
#include "kv/rotation.h"

namespace lk::kv {

// The pages of 128 tokens for all layers and KV heads: page_bytes[layer, head]. A full block is immutable and shared by
// copies of the sequence.
struct PageBlock {
    explicit PageBlock(Slot content) : data(std::move(content)) {}

    Slot data;
    mutable uint64_t visit = 0;                // accounting: the last count that visited this block,
    mutable std::bitset<kPageTokens> visited;  // and the tokens it counted
};

// The slots of one side of a cache.
struct SidePools {
    SidePools(const SideSpec& spec, Memory& memory, StagingBuffer& staging);

    SlotPool pages;         // blocks
    SlotPool rings;         // RingSlot
    StagingBuffer* copies;  // for slots on their way to and from host memory, in device memory only

    uint64_t used_bytes() const { return pages.used_bytes() + rings.used_bytes(); }
    uint64_t held_bytes() const { return pages.held_bytes() + rings.held_bytes(); }
};

// Offsets in the memory of one side of a sequence. The ring is at offset 0. Device memory also holds the head tables
// twice: those of the sequence and those of an append that chooses new ones.
struct RingSlot {
    RingSlot(const SideSpec& spec, bool on_host);

    size_t sinks;
    size_t tables[2];
    size_t bytes;
};

// Attention's view of one side, layer and KV head, in host memory. Token order: pages, ring, staged rows.
// Between stage_pages and commit the n_leaving oldest rows exist twice: exact in ring and staged rows, quantized in
// staged_pages, which continue `pages`. paged_for says which of the two a query reads.
struct SideView {
    const SideSpec* spec;
    const HeadTable* table;
    const HeadTable* staged_table;  // for staged_pages: chosen in this call at the first flush, otherwise `table`
    std::span<const PageRef> pages;
    std::span<const PageRef> staged_pages;
    size_t page_offset;          // bytes from the start of a block to the page of this layer and head
    const half_t* sinks;         // [n_sinks, D]: the first tokens; attention masks their codes in pages and ring
    const half_t* ring;          // [ring_rows, D], oldest at ring_start; null if the ring is q8_0
    const uint8_t* ring_blocks;  // [ring_rows, row_bytes], the same of a q8_0 ring; otherwise null
    const half_t* staged;        // [n_staged, D], rounded as the ring's rows
    int n_paged;
    int n_sinks;
    int ring_start;
    int n_ring;
    int n_staged;
    int n_leaving;      // rows in staged_pages
    int n_sinks_after;  // sinks after commit; attention masks their codes in staged_pages

    int length() const { return n_paged + n_ring; }  // without staged rows
    // Number of tokens that the query of staged row `row` reads from pages, staged pages included.
    int paged_for(int row) const {
        if (spec->visibility == Visibility::call) {
            return n_paged;
        }
        return n_paged + spec->ageing.leaving(n_ring + row + (spec->visibility == Visibility::stored ? 1 : 0));
    }
    // Number of sinks among the first `paged` tokens, for n_paged <= paged <= n_paged + n_leaving.
    int sinks_for(int paged) const { return std::min(paged, n_sinks_after); }
    // Whether the exact row of a token is in a q8_0 ring, and its blocks there.
    bool in_ring_blocks(int token) const {
        return ring_blocks != nullptr && token >= n_sinks && token >= n_paged && token < length();
    }
    const uint8_t* ring_block_row(int token) const {
        return ring_blocks + (ring_start + token - n_paged) % spec->ring_rows() * spec->ring_row_bytes();
    }
    // Exact row of a token that is a sink or not in `pages`, unless it is in a q8_0 ring.
    const half_t* exact_row(int token) const {
        const ptrdiff_t d = spec->format.head_size;
        if (token < n_sinks) {
            return sinks + token * d;
        }
        const int i = token - n_paged;  // counted from the oldest row of the ring
        return i < n_ring ? ring + (ring_start + i) % spec->ring_rows() * d : staged + (i - n_ring) * d;
    }
    // Number of tokens from `token` on, up to `end`, whose exact rows are contiguous.
    int exact_run(int token, int end) const {
        if (token < n_sinks) {
            return std::min(end, n_sinks) - token;
        }
        const int i = token - n_paged;
        if (i >= n_ring) {
            return end - token;
        }
        const int slot = (ring_start + i) % spec->ring_rows();
        return std::min({end - token, n_ring - i, spec->ring_rows() - slot});
    }
    const uint8_t* page(size_t index) const { return pages[index].block->data.data() + page_offset; }
    const uint8_t* staged_page(size_t index) const { return staged_pages[index].block->data.data() + page_offset; }
};

// Source and destination of each row of an append to one side. Rows are numbered through the ring, oldest first, then
// the staged rows. stage_pages writes the first n_leave rows to `pages`; commit writes the others to the ring.
struct AppendPlan {
    half_t* ring;                      // [layer, head, ring_rows, D]; null if the ring is q8_0
    uint8_t* ring_blocks;              // [layer, head, ring_rows, row_bytes] of a q8_0 ring; otherwise null
    half_t* sinks;                     // [layer, head, S, D]
    std::span<HeadTable> head_tables;  // [layer, head] tables of the pages, if the cache is in host memory
    uint8_t* tables;                   // [layer, head, table_bytes], if it is in device memory
    std::span<const PageRef> pages;    // destination of the leaving rows
    int ring_start;
    int n_ring;
    int n_rows;  // staged rows
    int n_leave;
    int first_kept;      // commit writes rows [first_kept, n_ring + n_rows) to the ring
    int first_token;     // position of row 0 in the sequence
    int sink_limit;      // leaving tokens below this position become sinks
    bool choose_tables;  // stage_pages chooses the head tables from the first `trigger` rows

    // Commit writes the first new_sinks rows to the sinks. With a q8_0 ring, it writes every staged row whose position
    // is below sink_limit, and those of the ring are there already.
    int new_sinks() const { return std::clamp(sink_limit - first_token, 0, n_leave); }
    bool commits_rows() const { return first_kept < n_ring + n_rows || new_sinks() > 0; }
};

// One side of one sequence.
class SequenceSide {
public:
    SequenceSide(const SideSpec& spec, SidePools& pools);
    SequenceSide(const SequenceSide& other);  // shares full pages, copies the rest
    SequenceSide& operator=(SequenceSide&&) = default;
    SequenceSide(SequenceSide&&) = default;

    int length() const { return layout_.length(); }
    int n_paged() const { return layout_.n_paged; }
    int n_sinks() const { return layout_.n_sinks; }
    int n_ring() const { return layout_.n_ring; }
    int n_sink_rows() const { return layout_.sink_rows(); }
    // Tokens below this position are staged and stored in 16 bits.
    int sink_limit() const { return layout_.sink_limit(); }
    int ring_start() const { return layout_.ring_start; }
    // Rows that can be appended before a query reads head tables or sinks that do not exist yet; INT_MAX if they do.
    int rows_to_first_flush() const;
    std::span<const PageRef> pages() const { return layout_.pages; }
    size_t fixed_bytes() const;  // ring, sinks and head tables
    size_t owned_bytes() const;  // the ring's slot and the blocks that no other sequence shares
    size_t copy_bytes() const;   // what a copy takes
    // Pages and ring that an append of n_rows takes, and tokens in the pages that it copies.
    size_t append_bytes(int n_rows) const;
    int append_copies(int n_rows) const;

    // [layer, head, ring_rows, D], oldest at ring_start, of an f16 ring.
    const half_t* ring() const { return reinterpret_cast<const half_t*>(slot_.data()); }
    const half_t* sinks() const { return reinterpret_cast<const half_t*>(at(places_.sinks)); }  // [layer, head, S, D]
    // [layer, head, table_bytes], device memory only.
    const uint8_t* tables() const { return at(places_.tables[table_]); }

    // n_rows: rows reserved for the current call, whose staged pages are part of the view; 0 outside a call.
    SideView view(int layer, int head, int n_rows = 0) const;
    int exact_from() const { return layout_.exact_from(); }  // see SideLayout
    void truncate(int n_keep);
    SideMark mark() const;
    // Truncates to the length of a mark of this sequence and restores the ring.
    void rewind(const SideMark& mark);
    // Removes tokens [begin, end); later tokens move down. Codes do not change; full-precision keys are rotated to
    // their new positions.
    void remove(int begin, int end, const Rotation& rotation);

    // Allocates ring, sinks and head tables on the first call; later calls do nothing.
    void make_ready();
    // Calls make_ready and allocates the pages for n_rows new rows, and new head tables if this append chooses them.
    // Copies the block that the rows continue if it is shared.
    void reserve(int n_rows);
    void release_reserved() noexcept;
    // Destinations of n_rows new rows. Valid from reserve(n_rows) to finish_append.
    AppendPlan plan_append(int n_rows) noexcept;
    // Adds the staged pages and tables to the sequence. The writes of the plan must be done or queued.
    void finish_append(int n_rows) noexcept;

    // Attention may read these between stage_pages and commit.
    std::span<const PageRef> staged_pages() const { return staged_pages_; }
    // [layer, head, table_bytes] of the staged pages, device memory only.
    const uint8_t* staged_tables() const { return at(places_.tables[stages_tables_ ? 1 - table_ : table_]); }

private:
    size_t index(int layer, int head) const { return static_cast<size_t>(layer) * spec_->n_head_kv + head; }
    const uint8_t* at(size_t offset) const { return slot_ ? slot_.data() + offset : nullptr; }
    uint8_t* at(size_t offset) { return slot_ ? slot_.data() + offset : nullptr; }
    Memory& memory() const { return pools_->rings.memory(); }
    void clear() noexcept;
    void drop_unused() noexcept;
    void drop_staged() noexcept;
    void own_last_block();
    void move_exact(int begin, int end, const Rotation& rotation);

    friend class SideState;  // saves and loads sides

    const SideSpec* spec_;
    SidePools* pools_;
    RingSlot places_;
    SideLayout layout_;
    // Empty until make_ready.
    Slot slot_;                      // ring [layer, head, ring_rows, ring_row_bytes], sinks [layer, head, S, D], tables
    std::vector<HeadTable> tables_;  // [layer, head], if the cache is in host memory
    int table_ = 0;                  // which of the slot's tables is valid, in device memory
    // Uncommitted append.
    std::vector<PageRef> staged_pages_;
    std::vector<HeadTable> staged_tables_;  // empty unless the append chooses tables
    bool stages_tables_ = false;            // the append chooses the slot's other tables, in device memory
};

struct Sequence {
    SequenceSide k;
    SequenceSide v;
    std::vector<std::shared_ptr<const SequenceMark>> marks = {};  // by length

    const SequenceSide& side(Side side) const { return side == Side::keys ? k : v; }
    SequenceSide& side(Side side) { return side == Side::keys ? k : v; }
    int length() const { return k.length(); }
    // Smallest length such that truncations to it and to every greater length are exact.
    int exact_from() const { return std::max(k.exact_from(), v.exact_from()); }
    // A mark from which the undo window reaches a length; null: none.
    const SequenceMark* mark_for(int length) const;
    // Exact from exact_from on and where a mark reaches. Marks of greater lengths are dropped.
    void truncate(int n_keep);
};

}  // namespace lk::kv
