// Segment descriptors for the attention kernels: device pointers and counts. C++17, because kernels include it too.
#pragma once

#include <cstdint>

#include "kv/codec/kivi_format.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// A run of tokens of one page block; see kv::PageRef.
struct Run {
    const uint8_t* block;
    int start;  // position of its first token in the sequence
    int count;
    int first;
    int frame;
};

// What the pass stages for one side; see kv::SideView. Between stage_pages and commit the n_leaving oldest rows exist
// twice: exact in ring and staged rows, quantized in staged pages. Pointers address layer 0, head 0.
struct StagedWork {
    const uint16_t* rows;  // [layer, head, n_ubatch, staged_width], starting at the segment's first row
    const Run* pages;      // continue SideWork::runs
    const uint8_t*
        tables;  // [layer, head, table_bytes] of `pages`: SideWork::tables, unless this pass chooses new ones
    int n_pages;
    int n_leaving;          // rows in `pages`
    int n_sinks;            // sinks after commit; the codes of their tokens in `pages` are invalid
    const uint8_t* blocks;  // [layer, head, n_ubatch, row_bytes]: `rows` as a q8_0 ring stores them
    int n_blocks;           // leading rows, except sinks, that attention reads from `blocks`
};

// One side of a segment's sequence: what is cached before this pass, and what the pass stages. Pointers address layer
// 0, head 0.
struct SideWork {
    const Run* runs;
    const uint16_t* sinks;       // [layer, head, S, D]
    const uint16_t* ring;        // [layer, head, ring_rows, D]; null if the ring is q8_0
    const uint8_t* ring_blocks;  // [layer, head, ring_rows, row_bytes] of a q8_0 ring; otherwise null
    const uint8_t* tables;       // [layer, head, table_bytes]
    StagedWork staged;
    int n_runs;
    int n_paged;
    int n_sinks;  // rows in the sinks; the first of them may still be in a q8_0 ring, too
    int ring_start;
    int n_ring;
};

struct SegmentWork {
    SideWork k;
    SideWork v;
    int row;          // first row in the pass
    int n_rows;       //
    int length;       // cached tokens
    int page_runs;    // leading runs of both sides that the page kernel reads
    int page_tokens;  // tokens of these runs
};

// Format and sizes of one side, equal for all segments.
struct SideShape {
    kv::PageFormat format;
    int trigger;
    int leave;      // rows that leave the ring together; see kv::AgeingRule
    int ring_rows;  // rows of a ring's memory
    int sinks;      // S
    int n_ubatch;
    int table_bytes;
    int ring_row_bytes;
    int staged_width;  // of a staged row, in halves
    bool by_position;  // queries read staged pages
    bool own_row;      // ... and the query's own row counts as cached: Visibility::stored

    // Whether commit puts every row into a page at once: stock types without a window.
    LK_HD bool all_paged() const { return trigger == 1 && sinks == 0; }
    // Number of tokens that the query of staged row `row` reads from pages; see kv::SideView::paged_for.
    LK_HD int paged_for(int n_paged, int n_ring, int row) const {
        const int rows = n_ring + row + (own_row ? 1 : 0);
        return n_paged + (!by_position || rows < trigger ? 0 : ((rows - trigger) / leave + 1) * leave);
    }
};

}  // namespace lk::cuda
