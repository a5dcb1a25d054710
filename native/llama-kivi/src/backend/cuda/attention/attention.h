// Attention kernels and their arguments. plan/attention_plan.h selects a kernel. All pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/plan/attention_plan.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

struct AttentionWork {
    const SegmentWork* segments;
    const float* q;          // [n, n_head, D], rotated
    float* out;              // [n, n_head, D]
    float* partial;          // [split, n * n_head, D + 2]: maximum, sum, values; unused with one split
    const float* frequency;  // [n_rot/2]
    SideShape k;
    SideShape v;
    int n_segments;
    int max_rows;  // most rows of a segment
    int n_rows;    // rows of the pass
    int layer;
    int n_head;
    int n_head_kv;
    int head_size;
    int n_rot;
    int halves;  // 1: RoPE pairs (i, i + n_rot/2); 0: (2i, 2i+1)
    int window;
    int n_page_splits;  // splits of the page kernel
    int n_splits;       // splits of the other tokens, numbered after the page splits
    bool fixed_splits;  // splits are InvariantSplits; otherwise they share the tokens evenly
    float scale;
};

// A compiled kernel. Argument: an AttentionWork. Grid: [KV heads * groups of query rows, splits, segments].
struct AttentionFunction {
    static constexpr int kThreads = kAttentionWarps * 32;
    const void* function;
    int shared_bytes;
    int threads = kThreads;  // per block
};

// Returns the kernel of a variant. k, v: formats it reads. The kernel of the other tokens is queued after a page kernel
// and runs concurrently with it; see queue.h.
AttentionFunction attention_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);

// The kernels of each .cu file. Each throws like fail_variant for a variant that it does not compile.
AttentionFunction flash_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);
// Whether flash_halves_function has the kernel: flash without its code for other types than f16.
bool supports_flash_halves(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);
AttentionFunction flash_halves_function(const AttentionVariant& variant);
// Compiled only with LK_CUDA_WGMMA.
AttentionFunction flash_wgmma_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                       const kv::PageFormat& v);
AttentionFunction rows_function(const AttentionVariant& variant);
AttentionFunction ring_group_function(const AttentionVariant& variant);
AttentionFunction pages_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);
AttentionFunction pages_row_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);

AttentionFunction whole_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);

// Merges the partial results of the splits.
void attention_join(const AttentionWork& work, Stream& stream);

}  // namespace lk::cuda
