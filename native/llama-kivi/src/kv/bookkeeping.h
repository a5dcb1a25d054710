// Which tokens of one side of a sequence are where: sinks, runs of pages, the ring. Counts and handles of pages only:
// nothing here reads, writes or allocates what the cache holds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kv/config.h"
#include "kv/kivi_format.h"

namespace lk::kv {

struct PageBlock;  // kv/storage.h

// A run of tokens of one block; they follow those of the run before.
struct PageRef {
    std::shared_ptr<PageBlock> block;
    int count = 0;  // tokens of the run
    int first = 0;  // its first token in the block
    int frame = 0;  // the position its keys were rotated for, less the position they have now

    int end() const { return first + count; }
};

// A place in the pages of a side: the blocks of its runs, then those of the staged runs.
struct Cursor {
    size_t block;
    int token;  // of the block

    Cursor advance(int n_tokens) const {
        return {block + (token + n_tokens) / kPageTokens, (token + n_tokens) % kPageTokens};
    }
    friend bool operator==(const Cursor&, const Cursor&) = default;
};

// The tokens of a side in order: runs of pages, the first tokens of which are sinks as well, then the ring.
struct SideLayout {
    explicit SideLayout(const SideSpec& side_spec) : spec(&side_spec) {}

    const SideSpec* spec;
    std::vector<PageRef> pages;
    int n_paged = 0;
    int n_sinks = 0;
    int ring_start = 0;
    int n_ring = 0;
    bool tables_chosen = false;

    int length() const { return n_paged + n_ring; }
    // The row of the ring that holds its i-th oldest token.
    int ring_row(int i) const { return (ring_start + i) % spec->ageing.trigger; }
    // Tokens below it become sinks when they leave the ring: only while every token before is one.
    int sink_limit() const { return n_sinks == n_paged ? spec->sinks : n_sinks; }
    // Sinks among tokens [begin, end).
    int sinks_in(int begin, int end) const { return std::max(0, std::min(end, n_sinks) - begin); }

    // How many times the ring sheds its oldest rows when n_rows are appended, and how many rows leave it by that.
    int flushes(int n_rows) const;
    int leaving(int n_rows) const { return flushes(n_rows) * spec->ageing.leave; }
    // Where the next row that leaves the ring goes.
    Cursor next_place() const;
    // Sinks once n_rows are appended.
    int sinks_after(int n_rows) const { return std::min(n_paged + leaving(n_rows), sink_limit()); }
    // The runs of the rows that leave the ring when n_rows are appended. A run that continues the last page refers to
    // its block without owning it; the other runs begin a block, which is null.
    void place(int n_rows, std::vector<PageRef>& staged) const;

    // Counts n_rows as appended. staged: the runs of place, with their blocks, which move into pages, where there is
    // room for them.
    void append(int n_rows, std::span<PageRef> staged) noexcept;
    void truncate(int n_keep);
    // Removes tokens [begin, end), which exist; those after move down. The ring's rows are in order from its start
    // then.
    void remove(int begin, int end);

private:
    void remove_paged(int begin, int end);
};

}  // namespace lk::kv
