// Where the tokens of one side of a sequence are: sinks, page runs, ring. Counts and page handles only; nothing here
// reads, writes or allocates cache memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kv/codec/kivi_format.h"
#include "kv/config.h"

namespace lk::kv {

struct PageBlock;  // kv/storage.h

// A run: consecutive tokens of one block. Its tokens follow those of the previous run.
struct PageRef {
    std::shared_ptr<PageBlock> block;
    int count = 0;  // tokens
    int first = 0;  // first token, counted in the block
    int frame = 0;  // position at which the keys were rotated minus current position

    int end() const { return first + count; }
};

// A position in the pages of a side. Blocks count through the runs, then through the staged runs.
struct Cursor {
    size_t block;
    int token;  // in the block

    Cursor advance(int n_tokens) const {
        return {block + (token + n_tokens) / kPageTokens, (token + n_tokens) % kPageTokens};
    }
    friend bool operator==(const Cursor&, const Cursor&) = default;
};

// The state after the last operation that cannot be taken back row by row: an inexact truncation or a context shift.
// A new sequence begins with zeros.
struct UndoBase {
    int length = 0;
    int n_paged = 0;
    bool tables_chosen = false;
};

// The tokens of a side in order: page runs, then the ring. The first n_sinks tokens of the pages are also sinks.
struct SideLayout {
    explicit SideLayout(const SideSpec& side_spec) : spec(&side_spec) {}

    const SideSpec* spec;
    std::vector<PageRef> pages;
    int n_paged = 0;
    int n_sinks = 0;
    int ring_start = 0;
    int n_ring = 0;
    int n_undo = 0;  // rows before ring_start that left the ring last
    bool tables_chosen = false;
    UndoBase base;

    int length() const { return n_paged + n_ring; }
    // Place of the i-th oldest token in the ring's memory; -n_undo <= i.
    int ring_row(int i) const { return (ring_start + i + spec->ring_rows()) % spec->ring_rows(); }
    // Tokens below this limit become sinks when they leave the ring. Sinks are contiguous from token 0.
    int sink_limit() const { return n_sinks == n_paged ? spec->sinks : n_sinks; }
    // Tokens of the ring that are also sinks: in a q8_0 ring the first S tokens are sinks from the start.
    int early_sinks() const { return spec->ring_in_blocks() ? std::clamp(sink_limit() - n_paged, 0, n_ring) : 0; }
    // Rows in the sinks: tokens [0, sink_rows()).
    int sink_rows() const { return n_sinks + early_sinks(); }
    // Number of sinks among tokens [begin, end).
    int sinks_in(int begin, int end) const { return std::max(0, std::min(end, n_sinks) - begin); }

    // Number of flushes when n_rows are appended, and number of rows that leave the ring.
    int flushes(int n_rows) const { return spec->ageing.flushes(n_ring + n_rows); }
    int leaving(int n_rows) const { return spec->ageing.leaving(n_ring + n_rows); }
    // First row of an append of n_rows that goes to the ring's memory. Rows count from the oldest in the ring.
    int first_kept(int n_rows) const;
    // Destination of the next row that leaves the ring.
    Cursor next_place() const;
    // Whether the next row that leaves the ring continues a block that another sequence shares.
    bool continues_shared() const;
    int new_blocks(int n_rows) const;  // blocks that place() starts
    // Number of sinks after n_rows are appended.
    int sinks_after(int n_rows) const { return std::min(n_paged + leaving(n_rows), sink_limit()); }
    // Computes the runs of the rows that leave the ring when n_rows are appended. A run that continues the last page
    // has a non-owning pointer to its block, which must not be shared. Every other run starts a new block, whose
    // pointer is null.
    void place(int n_rows, std::vector<PageRef>& staged) const;

    // Counts n_rows as appended. staged: the runs computed by place(), with allocated blocks; they are moved into
    // pages, whose capacity must suffice.
    void append(int n_rows, std::span<PageRef> staged) noexcept;
    // Smallest length such that truncations to it and to every greater length are exact: the side then equals one that
    // never had the removed tokens.
    int exact_from() const;
    void truncate(int n_keep);
    // Removes tokens [begin, end), which must exist; later tokens move down. Afterwards the ring starts at row 0.
    void remove(int begin, int end);

    // Drops the tokens of pages from n_keep on.
    void drop_paged(int n_keep);

private:
    void reopen();
    void set_base();
    void remove_paged(int begin, int end);
};

}  // namespace lk::kv
