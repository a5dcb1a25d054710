// How a pass over a call's segments is laid out for attention: segments in groups that the same kernels take, and the
// bytes that describe them to the device. Host code without CUDA.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/plan/attention_plan.h"
#include "backend/cuda/plan/segments.h"
#include "kv/cache.h"

namespace lk::cuda {

// Leading runs in which keys and values of the same tokens lie alike, and for the positions they have now.
struct CommonRuns {
    int runs = 0;
    int tokens = 0;
};
CommonRuns count_common_runs(std::span<const kv::PageRef> k, std::span<const kv::PageRef> v);

// Segments [first, first + count) of the plan.
struct SegmentGroup {
    size_t first;
    size_t count;
    int max_rows;       // see AttentionRequest
    int max_tokens;     //
    int max_page_runs;  //
    bool exact;         //
};

struct PassPlan {
    std::vector<kv::Segment> segments;  // in the order of the groups
    std::vector<CommonRuns> page_runs;  // of each segment: what the page kernel takes
    std::vector<SegmentGroup> groups;   // none is empty
    int n_rows = 0;                     // of the call
    size_t n_runs = 0;                  // of all segments, both sides

    // Of the image: SegmentWork[segments], then Run[n_runs].
    size_t bytes() const { return segments.size() * sizeof(SegmentWork) + n_runs * sizeof(Run); }
};

PassPlan plan_pass(const kv::Cache& cache, std::span<const kv::Segment> segments);

// Writes the image that the kernels read, plan.bytes() at `host`; it is copied to `device` afterwards. The cache is the
// plan's and has not changed.
void write_pass(const PassPlan& plan, kv::Cache& cache, uint8_t* host, const uint8_t* device);

// The request for a group's attention.
AttentionRequest attention_request(const kv::Cache& cache, const SegmentGroup& group, int n_head);

}  // namespace lk::cuda
