// What the host asks of the kernels: plain functions that queue work on a stream. All pointers are to device memory.
// Shared by the backend (C++20) and the kernels (C++17, as the CUDA compiler wants).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/splits.h"
#include "backend/rows.h"
#include "kv/kivi_format.h"
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

// ---- matmul_vector.cu, matmul.cu, matmul_tile.cu

constexpr bool is_float(WeightType type) {
    return type == WeightType::F32 || type == WeightType::F16 || type == WeightType::BF16;
}

// The kernels of products by their columns: one (multiply_vector), few (multiply_few), up to kTileColumns of quantized
// weights (multiply_tiles), more (cuBLAS, in halves).
constexpr int few_columns(WeightType type) {
    return type == WeightType::F32 || type == WeightType::BF16   ? 32
           : type == WeightType::F16 || type >= WeightType::Q2_K ? 8
                                                                 : 1;
}
constexpr int kTileColumns = 64;

// Matrices of one type and width that are multiplied with the same input, in one launch.
struct FewProducts {
    static constexpr int kMost = 4;
    const uint8_t* w[kMost];  // [n_rows, n_cols]
    float* y[kMost];          // [n, n_rows]
    bool add[kMost];          // to what y holds
    int n_rows[kMost];
    int first_block[kMost];  // filled in by the launch
    int count;
};

// Whether multiply_vector takes a vector in 8 bits.
bool wants_codes(WeightType type);
// A vector in 8 bits; see make_codes.
struct VectorCodes {
    const int8_t* codes;
    const float2* blocks;
};
// Every y = x[n_cols] W^T. codes: of x, if they are wanted.
void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, cudaStream_t stream);
// Every y = x[n, n_cols] W^T, x in halves, for 1 < n <= few_columns(type): one read of the weights.
void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                  cudaStream_t stream);
// What a device runs at once.
struct Processors {
    int count;
    int shared_bytes;  // of a block, at most
};
// How multiply_tiles shares its work: see matmul_tile.cu.
struct TilePlan {
    static constexpr int kRows = 96;
    static constexpr int kSums = kRows * kTileColumns;

    int n_tiles;  // of rows
    int n_steps;  // of a row
    Shares shares;
    int n_stages;
    int shared_bytes;

    size_t n_sums() const { return size_t{2} * shares.n_blocks * kSums; }
    bool fits() const { return n_stages > 2; }
};
TilePlan plan_tiles(WeightType type, const FewProducts& products, int n_cols, int n, const Processors& processors);
// Every y = x[n, n_cols] W^T, x in halves, for quantized weights, n <= kTileColumns and a plan that fits.
// sums[plan.n_sums()] and counts[plan.n_tiles], which are zero and are so again afterwards, are its own.
void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, cudaStream_t stream);
// out[n] = the elements of n_rows rows of n_cols, as halves.
void dequantize(WeightType type, const uint8_t* w, int64_t n, uint16_t* out, cudaStream_t stream);

// ---- sample.cu

// tokens[n] from logits[n, n_vocab]; see sample_row.
void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws, int32_t* tokens,
            const Watch& watch, cudaStream_t stream);

// ---- the cache

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
    int page_runs;    // leading runs of both sides that attention_pages takes
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

struct AttentionWork {
    const SegmentWork* segments;
    const float* q;          // [n, n_head, D], rotated
    float* out;              // [n, n_head, D]
    float* partial;          // [split, n * n_head, D + 2]: maximum, sum, values; if there is more than one split
    const float* frequency;  // [n_rot/2]
    SideShape k;
    SideShape v;
    int n_segments;
    int max_rows;  // of a segment
    int n_rows;    // of the call
    int layer;
    int n_head;
    int n_head_kv;
    int head_size;
    int n_rot;
    int halves;  // RoPE pairs (i, i + n_rot/2)
    int window;
    int n_page_splits;  // by attention_pages
    int n_splits;       // of the other tokens, behind those
    float scale;
};

// A kernel of attention. Grid: KV heads times groups of n_rows query rows, splits, segments.
struct AttentionKernel {
    static constexpr int kThreads = 128;
    const void* function;  // (AttentionWork)
    int shared_bytes;
    int n_rows;    // query rows of a block
    int n_tokens;  // that a block takes at once
};

// Few query rows over the pages of every segment, in n_page_splits splits: KIVI pages; the same for one query row of a
// KV head; pages of q8_0 and q4_0. They run beside the kernel that is queued before them; see queue.h.
AttentionKernel pages_kernel(const AttentionWork& work);
AttentionKernel pages_row_kernel(const AttentionWork& work);
AttentionKernel block_pages_kernel(const AttentionWork& work);
// Whether it takes the pages of a pair of formats.
bool pages_apply(const kv::PageFormat& k, const kv::PageFormat& v);
// Few query rows over the other tokens, if these are all in full precision and for the positions they have now; heads
// of 64 or 128.
AttentionKernel rows_kernel(const AttentionWork& work);
// Any query rows over the other tokens.
AttentionKernel flash_kernel(const AttentionWork& work);
constexpr int kFlashSplitRows = 48;  // up to so many of a KV head, its warps share rows and split tokens
// Joins the splits of the segments' rows.
void attention_join(const AttentionWork& work, cudaStream_t stream);

}  // namespace lk::cuda
