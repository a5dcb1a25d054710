// Arguments of the append kernels. C++17, for nvcc.
#pragma once

#include <cstdint>

namespace lk::cuda {

constexpr int kStepTokens = 32;  // limit of a page step, except for key groups

// One side of a segment; see kv::AppendPlan. Pointers address layer 0, head 0.
struct AppendWork {
    uint16_t* ring;                // [layer, head, ring_rows, D]; null if the ring is q8_0
    uint8_t* ring_blocks;          // [layer, head, ring_rows, row_bytes] of a q8_0 ring; otherwise null
    uint16_t* sinks;               // [layer, head, S, D]
    uint8_t* tables;               // [layer, head, table_bytes]
    const uint16_t* staged;        // [layer, head, n_ubatch, staged_width], starting at the segment's first row
    const uint8_t* staged_blocks;  // [layer, head, n_ubatch, row_bytes], the same for a q8_0 ring; otherwise null
    int n_rows;
    int ring_start;
    int n_ring;
    int n_leave;
    int first_kept;  // first row that commit writes to the ring
    int first_token;
    int sink_limit;
    int sink_begin;  // commit writes rows [sink_begin, sink_end) to the sinks
    int sink_end;
    int choose_tables;
};

// Consecutive leaving rows of a segment that one thread block writes to consecutive tokens of a page. No two steps
// write to the same word.
struct PageStep {
    uint8_t* block;  // page_bytes[layer, head]
    int work;        // index of the segment's AppendWork
    int row;         // first row of the append; row 0 is the oldest in the ring
    int n_rows;
    int token;  // first token in the page
};

}  // namespace lk::cuda
