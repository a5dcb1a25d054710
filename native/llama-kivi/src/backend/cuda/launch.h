// What the host asks of the kernels: plain functions that queue work on a stream. All pointers are to device memory.
// Shared by the backend (C++20) and the kernels (C++17, as the CUDA compiler wants). attention/attention.h and
// matmul/matmul.h are the same for their kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/plan/segments.h"
#include "backend/rows.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk::cuda {

// Where kernels report what is not finite. Places are numbers from 1 on, which the host gives to what a pass computes;
// *broken, 0 at first, becomes the place of what was found first.
struct Watch {
    int* broken;
    int place;
};
// What rows are made of, and the rows themselves, also if they are beyond the range of the form they are made in.
struct RowsWatch {
    int* broken;
    int x;
    int up;
    int made;
};

// ---- elementwise.cu

// out[n, n_cols] = rows `tokens` of a table.
void embed(WeightType type, const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n, int n_cols,
           float* out, const Watch& watch, cudaStream_t stream);
// out[n, dim] = the rows, dim a multiple of four.
void make_floats(const Rows& rows, int n, int dim, float* out, const RowsWatch& watch, cudaStream_t stream);
void make_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, cudaStream_t stream);
// One row in 8 bits, dim a multiple of 32: codes[dim], and for each 32 of them their scale and the sum of what they
// stand for.
void make_codes(const Rows& rows, int dim, int8_t* codes, float2* blocks, const RowsWatch& watch, cudaStream_t stream);
// Looks at x[n].
void check_finite(const float* x, int64_t n, const Watch& watch, cudaStream_t stream);

// ---- sample.cu

// tokens[n] from logits[n, n_vocab]; see sample_row.
void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws, int32_t* tokens,
            const Watch& watch, cudaStream_t stream);

// ---- the cache

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

// See kv::AppendPlan. staged: from the segment's first row on.
struct AppendWork {
    uint16_t* ring;
    uint16_t* sinks;
    uint8_t* tables;
    const uint16_t* staged;
    uint8_t* const* blocks;
    int n_rows;
    int ring_start;
    int n_ring;
    int first_token;
    int sink_limit;
    int choose_tables;
    int page_token;
    int n_heads;  // layers times KV heads
};

// Moves the staged rows of segments into their rings, from which nothing leaves by that.
void append_to_ring(const SideShape& shape, const AppendWork* work, int max_rows, int n_segments, int n_heads,
                    cudaStream_t stream);
// Moves the staged rows of segments through the rings into the pages.
void append(const SideShape& shape, const AppendWork* work, int max_rows, int n_segments, int n_heads,
            cudaStream_t stream);

}  // namespace lk::cuda
