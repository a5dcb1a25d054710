// Rows into a cache in host memory: staged rows, staged pages, commit (CUDA: backend/cuda/append).
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

// Working memory of a thread that quantizes rows.
struct QuantizeScratch {
    std::vector<float> rows;    // [tokens, D]
    std::vector<float> column;  // [tokens]
};

// Quantizes what leaves the rings; keeps its working memory from call to call.
class Append {
public:
    // See Backend::stage_pages. Allocates only if rows leave a ring and have not before.
    void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers, ThreadPool& pool);

private:
    std::vector<QuantizeScratch> scratch_;  // [thread]
};

// See Backend::commit. Allocates nothing.
void commit(kv::Cache& cache, std::span<const kv::Segment> segments, ThreadPool& pool) noexcept;

}  // namespace lk::cpu
