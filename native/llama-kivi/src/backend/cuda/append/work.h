// What the kernels of an append are given. C++17, for CUDA's compiler.
#pragma once

#include <cstdint>

namespace lk::cuda {

constexpr int kStepTokens = 32;  // of a page step at most, unless it is a key group

// One side of a segment; see kv::AppendPlan. Pointers are those of layer 0, head 0.
struct AppendWork {
    uint16_t* ring;          // [layer, head, trigger, D]
    uint16_t* sinks;         // [layer, head, S, D]
    uint8_t* tables;         // [layer, head, table_bytes]
    const uint16_t* staged;  // [layer, head, n_ubatch, D], from the segment's first row on
    int n_rows;
    int ring_start;
    int n_ring;
    int n_leave;
    int first_token;
    int sink_limit;
    int choose_tables;
};

// Consecutive leaving rows of a segment that a block of threads takes to consecutive tokens of a page. No two steps
// write to the same word.
struct PageStep {
    uint8_t* block;  // page_bytes[layer, head]
    int work;        // index of the segment's AppendWork
    int row;         // of the append: the ring's oldest is 0
    int n_rows;
    int token;  // of the page
};

}  // namespace lk::cuda
