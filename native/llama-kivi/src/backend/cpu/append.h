// Appends to a cache in host memory: stage rows, stage pages, commit. The CUDA version is backend/cuda/append.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/half.h"
#include "base/thread_pool.h"
#include "kv/cache.h"

namespace lk::cpu {

// Rounds n floats to half.
using ToHalf = void (*)(const float* x, int64_t n, half_t* out);

// Stages rows [n_rows, n_head_kv, D], all rows of the pass, for one layer. LK_NUMERIC_ERROR names layer and side.
void stage(kv::Cache& cache, kv::Side side, int layer, int n_rows, const float* rows, ToHalf to_half);

// Scratch of one quantizing thread.
struct QuantizeScratch {
    std::vector<float> rows;    // [tokens, D]
    std::vector<float> column;  // [tokens]
};

// Quantizes the rows that leave the rings. Scratch is reused between calls.
class Append {
public:
    // See Backend::stage_pages. Allocates scratch only when rows leave a ring.
    void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers, ThreadPool& pool);

private:
    // One run of staged pages of one side of a segment, for every head of the layers.
    struct Run {
        kv::AppendPlan plan;
        const kv::SideSpec* spec;
        const half_t* staged;      // the segment's first row of head 0
        const kv::PageRef* pages;  // null: chooses the head tables
        int first_row;             // of the append: row 0 of the run
    };

    std::vector<QuantizeScratch> scratch_;  // [thread]
    std::vector<Run> tables_;
    std::vector<Run> runs_;
};

// See Backend::commit. Allocates nothing.
void commit(kv::Cache& cache, std::span<const kv::Segment> segments, ThreadPool& pool) noexcept;

}  // namespace lk::cpu
