// A call's segments as the attention kernels read them: pointers into device memory, and counts. C++17, for kernels
// too.
#pragma once

#include <cstdint>

#include "kv/kivi_format.h"

namespace lk::cuda {

// A run of tokens of one page block; see kv::PageRef.
struct Run {
    const uint8_t* block;
    int start;  // its first token's place in the sequence
    int count;
    int first;
    int frame;
};

// One side of the sequence of a segment, before the call's rows. Pointers are those of layer 0, head 0.
struct SideWork {
    const Run* runs;
    const uint16_t* sinks;   // [layer, head, S, D]
    const uint16_t* ring;    // [layer, head, trigger, D]
    const uint8_t* tables;   // [layer, head, table_bytes]
    const uint16_t* staged;  // [layer, head, n_ubatch, D], from the segment's first row on
    int n_runs;
    int n_paged;
    int n_sinks;
    int ring_start;
    int n_ring;
};

struct SegmentWork {
    SideWork k;
    SideWork v;
    int row;          // of the call
    int n_rows;       // of the call
    int length;       // tokens before the call's
    int page_runs;    // leading runs of both sides that the page kernel takes
    int page_tokens;  // their tokens
};

// What the sides have in common.
struct SideShape {
    kv::PageFormat format;
    int trigger;
    int leave;
    int align;
    int sinks;  // S
    int n_ubatch;
    int table_bytes;
};

}  // namespace lk::cuda
