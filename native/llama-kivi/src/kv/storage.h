// The memory of a cache's sequences: blocks of pages, rings, sinks and tables. Full blocks are shared by copies.
#pragma once

#include <algorithm>
#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "kv/bookkeeping.h"
#include "kv/config.h"
#include "kv/kivi_format.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

// The pages of 128 tokens over all layers and heads: page_bytes[layer, head]. Immutable once full; shared by copies.
struct PageBlock {
    PageBlock(Memory& memory, size_t bytes, std::atomic<int64_t>* live_bytes);
    PageBlock(Buffer<uint8_t> content, std::atomic<int64_t>* live_bytes);
    ~PageBlock();
    PageBlock(const PageBlock&) = delete;
    PageBlock& operator=(const PageBlock&) = delete;

    Buffer<uint8_t> data;
    std::atomic<int64_t>* live_bytes;          // of the cache
    mutable uint64_t visit = 0;                // accounting: last walk that saw it,
    mutable std::bitset<kPageTokens> visited;  // and the tokens it has counted
};

// What attention reads of one side, one layer, one KV head, in the host's memory. Tokens in order: pages, ring, staged
// rows. Before the commit, the oldest n_leaving of ring and staged rows can be read twice: exact in the ring and the
// staged rows, and quantized in staged_pages, once those are staged. staged_pages continue `pages`.
struct SideView {
    const SideSpec* spec;
    const HeadTable* table;
    const HeadTable* staged_table;  // of staged_pages: chosen in this call at the first flush, else `table`
    std::span<const PageRef> pages;
    std::span<const PageRef> staged_pages;
    size_t page_offset;    // of this layer and head in a block
    const half_t* sinks;   // [n_sinks, D]: the first tokens of the pages, whose codes are masked
    const half_t* ring;    // [trigger, D], oldest at ring_start
    const half_t* staged;  // [n_staged, D]
    int n_paged;
    int n_sinks;
    int ring_start;
    int n_ring;
    int n_staged;
    int n_leaving;      // rows in staged_pages
    int n_sinks_after;  // sinks after the commit, whose codes in staged_pages are masked

    int length() const { return n_paged + n_ring; }  // tokens before the staged ones
    const uint8_t* page(size_t index) const { return pages[index].block->data.data() + page_offset; }
    const uint8_t* staged_page(size_t index) const { return staged_pages[index].block->data.data() + page_offset; }
};

// What an append of rows to one side moves where. Its rows are those of the ring, the oldest first, then the staged
// rows. stage_pages writes the first n_leave of them to `pages`, commit the others to the ring.
struct AppendPlan {
    half_t* ring;                      // [layer, head, trigger, D]
    half_t* sinks;                     // [layer, head, S, D]
    std::span<HeadTable> head_tables;  // [layer, head] of the pages; on the host
    uint8_t* tables;                   // [layer, head, table_bytes] of the pages; elsewhere
    std::span<const PageRef> pages;    // of the leaving rows
    int ring_start;
    int n_ring;
    int n_rows;  // staged
    int n_leave;
    int first_token;     // of the sequence: the first row's
    int sink_limit;      // leaving tokens below it become sinks
    bool choose_tables;  // stage_pages chooses them from the first `trigger` rows

    // Rows that commit writes to the ring: [first_kept, n_ring + n_rows).
    int first_kept() const { return std::max(n_ring, n_leave); }
    // Leading rows that commit writes to the sinks.
    int new_sinks() const { return std::clamp(sink_limit - first_token, 0, n_leave); }
    bool commits_rows() const { return first_kept() < n_ring + n_rows || new_sinks() > 0; }
};

// One side of one sequence.
class SequenceSide {
public:
    SequenceSide(const SideSpec& spec, Memory& memory, std::atomic<int64_t>* live_bytes);
    SequenceSide(const SequenceSide& other);  // shares full pages, copies the rest
    SequenceSide& operator=(SequenceSide&&) = default;
    SequenceSide(SequenceSide&&) = default;

    int length() const { return layout_.length(); }
    int n_paged() const { return layout_.n_paged; }
    int n_sinks() const { return layout_.n_sinks; }
    int n_ring() const { return layout_.n_ring; }
    int ring_start() const { return layout_.ring_start; }
    std::span<const PageRef> pages() const { return layout_.pages; }
    size_t fixed_bytes() const;  // ring, sinks and per-head tables

    const half_t* ring() const { return ring_.data(); }           // [layer, head, trigger, D], oldest at ring_start
    const half_t* sinks() const { return sinks_.data(); }         // [layer, head, S, D]
    const uint8_t* tables() const { return raw_tables_.data(); }  // [layer, head, table_bytes], not on the host

    // n_rows: of the call's reserve, whose staged pages the view has too; 0: none.
    SideView view(int layer, int head, int n_rows = 0) const;
    void truncate(int n_keep) { layout_.truncate(n_keep); }
    // Removes tokens [begin, end); those after move down. Codes stay as they are, rows in full precision are turned.
    void remove(int begin, int end, const Rotation& rotation);

    // Allocates ring, sinks and tables. Done once.
    void make_ready();
    // Allocates the pages that n_rows more rows need, and the tables if they choose them; makes ready.
    void reserve(int n_rows);
    void release_reserved() noexcept;
    // Where a backend puts n_rows more rows. After reserve(n_rows), until finish_append.
    AppendPlan plan_append(int n_rows) noexcept;
    // Takes the staged pages and tables over. plan_append's pages are written and its rows copied, or queued to be.
    void finish_append(int n_rows) noexcept;

    // What attention may read of an append between its stage_pages and its commit.
    std::span<const PageRef> staged_pages() const { return staged_pages_; }
    // Not on the host: [layer, head, table_bytes] of the staged pages.
    const uint8_t* staged_tables() const {
        return staged_raw_tables_.size() > 0 ? staged_raw_tables_.data() : raw_tables_.data();
    }

private:
    size_t index(int layer, int head) const { return static_cast<size_t>(layer) * spec_->n_head_kv + head; }
    void move_exact(int begin, int end, const Rotation& rotation);

    friend class SideState;  // saves and builds

    const SideSpec* spec_;
    Memory* memory_;
    std::atomic<int64_t>* live_bytes_;
    SideLayout layout_;
    // Empty until make_ready.
    Buffer<half_t> ring_;            // [layer, head, trigger, D]
    Buffer<half_t> sinks_;           // [layer, head, S, D]
    std::vector<HeadTable> tables_;  // [layer, head]; on the host
    Buffer<uint8_t> raw_tables_;     // [layer, head, table_bytes]; elsewhere
    // Of an append that is not committed. Tables: empty unless it chooses them.
    std::vector<PageRef> staged_pages_;
    std::vector<HeadTable> staged_tables_;
    Buffer<uint8_t> staged_raw_tables_;
};

struct Sequence {
    SequenceSide k;
    SequenceSide v;

    const SequenceSide& side(Side side) const { return side == Side::keys ? k : v; }
    SequenceSide& side(Side side) { return side == Side::keys ? k : v; }
    int length() const { return k.length(); }
};

}  // namespace lk::kv
