// Plans the attention of a pass: groups segments by kernel and writes their descriptors for the device. Host code
// without CUDA.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/plan/attention_plan.h"
#include "backend/cuda/plan/pass_cache.h"
#include "backend/cuda/plan/segments.h"
#include "backend/plugin.h"

namespace lk::cuda {

// Leading runs that keys and values have in common: same tokens, same position in the block, no frame.
struct CommonRuns {
    int runs = 0;
    int tokens = 0;
};
CommonRuns count_common_runs(std::span<const lk_plugin_run> k, std::span<const lk_plugin_run> v);

// Segments [first, first + count) of the plan.
struct SegmentGroup {
    size_t first;
    size_t count;
    int max_rows;       // see AttentionRequest
    int max_tokens;     //
    int max_page_runs;  //
    bool exact;         //
    size_t n_short;     // leading segments of a batch-invariant pass with is_short(page runs); otherwise 0
};

// A row of a batch-invariant pass; see row_plan.h.
struct PlannedRow {
    struct OneSide {
        size_t first_run;  // in PassPlan::runs
        int n_runs;
        int n_staged;  // tokens of staged pages in these runs
    };
    int preceding;  // rows of its sequence before it in the pass
    OneSide k;
    OneSide v;
};

struct PassPlan {
    std::vector<size_t> segments;       // indexes of the pass's segments, in the order of the groups
    std::vector<CommonRuns> page_runs;  // per segment: the runs of the page kernel
    std::vector<SegmentGroup> groups;   // without empty groups
    bool reads_staged = false;          // a row of a segment reads staged pages
    int n_rows = 0;                     // rows of the pass
    size_t n_runs = 0;                  // runs of all segments, both sides, staged pages included
    std::vector<PlannedRow> rows;       // per segment of a batch-invariant pass, otherwise empty
    std::vector<Run> runs;              // of `rows`

    // Size of the image: SegmentWork[segments], then Run[n_runs].
    size_t bytes() const { return segments.size() * sizeof(SegmentWork) + n_runs * sizeof(Run); }
};

PassPlan plan_pass(const PassCache& cache, std::span<const lk_plugin_segment> segments);

// Writes the image that the kernels read: plan.bytes() bytes at `host`, to be copied to `device`. segments: those
// of plan_pass.
void write_pass(const PassPlan& plan, const PassCache& cache, std::span<const lk_plugin_segment> segments,
                uint8_t* host, const uint8_t* device);

// Whether the launches of the pass recur in later passes, so that a graph pays: few rows per sequence, and attention
// reads no staged pages.
bool is_decode_step(const PassPlan& plan, std::span<const lk_plugin_segment> segments);

// Whether the page kernels read caches of these specs. Flash reads stock types with a window instead.
bool reads_pages(const kv::SideSpec& k, const kv::SideSpec& v);

// Shape of one side, for the kernels.
SideShape side_shape(const kv::SideSpec& spec, int n_ubatch);

// The attention requests of a plan, which share out its segments in order. There is one per group, but two if a group's
// short segments have a kernel of their own: in a batch-invariant pass the kernel follows from the segment alone.
// invariant: plan_rows made the plan.
std::vector<AttentionRequest> attention_requests(const PassCache& cache, const PassPlan& plan, int n_head,
                                                 bool invariant);

}  // namespace lk::cuda
