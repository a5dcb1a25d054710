// Launch functions of the append kernels. All pointers are device pointers. Included by the backend (C++20) and by the
// kernels (C++17).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/plan/append_work.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

// Queries, keys and values of one layer; see StageArgs.
struct StageWork {
    SideShape k_shape;
    SideShape v_shape;
    float* q;
    float* k;
    const float* v;
    const float* cos_sin;
    uint16_t* staged_k;  // [head, n_ubatch, staged_width] of the layer
    uint16_t* staged_v;
    uint8_t* blocks_k;  // [head, n_ubatch, row_bytes], the rows as a q8_0 ring stores them; null for an f16 ring
    uint8_t* blocks_v;
    const uint8_t* sink_rows_k;  // [n]: 1 for rows that become sinks; used with a q8_0 ring
    const uint8_t* sink_rows_v;
    int* broken;  // see Watch
    int q_place;
    int k_place;
    int v_place;
    int large_k_place;  // for keys beyond the range of half
    int large_v_place;
    int n;
    int n_head;
    int n_head_kv;
    int n_rot;
    int halves;  // 1: RoPE pairs (i, i + n_rot/2); 0: (2i, 2i+1)
};
void stage(const StageWork& work, Stream& stream);

// Heads [first, first + count), counted over all layers.
struct HeadRange {
    int first;
    int count;
};

// Chooses the head tables of works with choose_tables.
void choose_tables(const SideShape& shape, const AppendWork* works, int n_works, HeadRange heads, Stream& stream);
// Quantizes the rows of steps into their pages. Runs after choose_tables.
void stage_pages(const SideShape& shape, const AppendWork* works, const PageStep* steps, int n_steps, HeadRange heads,
                 Stream& stream);
// Copies rows into the sinks, then into the rings: at most max_sinks and max_kept rows per work.
void commit_rows(const SideShape& shape, const AppendWork* works, int n_works, int max_sinks, int max_kept, int n_heads,
                 Stream& stream);

}  // namespace lk::cuda
