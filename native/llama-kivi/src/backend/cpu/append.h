// Rows into a cache in host memory: staging, the ring, and the quantizing of what leaves it (CUDA: append.cu).
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

// rows [n_rows, n_head_kv, D] of one layer, all rows of the call; LK_NUMERIC_ERROR names layer and side.
void stage(kv::Cache& cache, kv::Side side, int layer, int n_rows, const float* rows, ToHalf to_half);

// Working memory of a thread while rows leave a ring.
struct FlushScratch {
    std::vector<float> rows;    // [tokens, D]
    std::vector<float> column;  // [tokens]
};

// Moves the staged rows of segments through the rings into the pages. prepare allocates all that commit works in.
class Append {
public:
    // After Cache::reserve of the same segments, which are of different sequences.
    void prepare(kv::Cache& cache, std::span<const kv::Segment> segments, int n_threads);
    // The segments and the cache of prepare. pool: of at most n_threads.
    void commit(kv::Cache& cache, std::span<const kv::Segment> segments, ThreadPool& pool) noexcept;

private:
    struct SegmentPlan {
        kv::AppendPlan k;
        kv::AppendPlan v;
    };

    std::vector<SegmentPlan> plans_;     // [segment]
    std::vector<FlushScratch> scratch_;  // [thread]
};

}  // namespace lk::cpu
