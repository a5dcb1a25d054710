// What the host asks of the append's kernels: plain functions that queue work on a stream. All pointers are to device
// memory. Shared by the backend (C++20) and the kernels (C++17).
#pragma once

#include "backend/cuda/append/work.h"
#include "backend/cuda/launch.h"

namespace lk::cuda {

// A layer's rows on their way to attention and the cache; see StageArgs.
struct StageWork {
    SideShape k_shape;
    SideShape v_shape;
    float* q;
    float* k;
    const float* v;
    const float* cos_sin;
    uint16_t* staged_k;  // [head, n_ubatch, D] of the layer
    uint16_t* staged_v;
    int* broken;  // see Watch
    int q_place;
    int k_place;
    int v_place;
    int large_k_place;  // of keys beyond the range of halves
    int large_v_place;
    int n;
    int n_head;
    int n_head_kv;
    int n_rot;
    int halves;  // RoPE pairs (i, i + n_rot/2)
};
void stage(const StageWork& work, cudaStream_t stream);

// Heads [first, first + count) of those of all layers.
struct HeadRange {
    int first;
    int count;
};

// The tables of the works that choose theirs.
void choose_tables(const SideShape& shape, const AppendWork* works, int n_works, HeadRange heads, cudaStream_t stream);
// The rows of steps into their pages, after choose_tables.
void stage_pages(const SideShape& shape, const AppendWork* works, const PageStep* steps, int n_steps, HeadRange heads,
                 cudaStream_t stream);
// Rows into the sinks, then into the rings: at most max_sinks and max_kept of a work.
void commit_rows(const SideShape& shape, const AppendWork* works, int n_works, int max_sinks, int max_kept, int n_heads,
                 cudaStream_t stream);

}  // namespace lk::cuda
