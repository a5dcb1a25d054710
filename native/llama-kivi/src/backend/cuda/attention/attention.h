// The attention kernels and what they read. plan/attention_plan.h selects among them. All pointers are to device
// memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/plan/attention_plan.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

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
    int n_page_splits;  // by the page kernel
    int n_splits;       // of the other tokens, behind those
    float scale;
};

// A compiled kernel. Its argument is an AttentionWork; its grid is KV heads times groups of query rows, splits,
// segments.
struct AttentionFunction {
    static constexpr int kThreads = kAttentionWarps * 32;
    const void* function;
    int shared_bytes;
};

// The kernel of a variant. k, v: the formats it reads. Page kernels run beside the kernel queued before them; see
// queue.h.
AttentionFunction attention_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);

// Those of each file. Each throws as fail_variant does for a variant that it does not compile.
AttentionFunction flash_function(const AttentionVariant& variant);
AttentionFunction rows_function(const AttentionVariant& variant);
AttentionFunction pages_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);
AttentionFunction pages_row_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v);

// Joins the splits of the segments' rows.
void attention_join(const AttentionWork& work, cudaStream_t stream);

}  // namespace lk::cuda
