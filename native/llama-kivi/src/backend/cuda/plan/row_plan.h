// Plans a batch-invariant pass: every row becomes a segment of its own, described as in token-by-token decoding. A row
// reads earlier rows of the pass from staged pages if they have left the ring by then, otherwise from staged rows. Host
// code without CUDA.
#pragma once

#include <span>

#include "backend/cuda/plan/pass_cache.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/plugin.h"

namespace lk::cuda {

// Like plan_pass. The pass must end before the first row that would read head tables or sinks which it makes itself;
// see kv::SequenceSide::rows_to_first_flush.
PassPlan plan_rows(const PassCache& cache, std::span<const lk_plugin_segment> segments);

// Like write_pass, for a plan by plan_rows.
void write_rows(const PassPlan& plan, const PassCache& cache, std::span<const lk_plugin_segment> segments,
                uint8_t* host, const uint8_t* device);

// Throws LK_UNSUPPORTED unless the decoding kernels read the cache: only their order of summing does not depend on the
// batch. The message says what to change.
void check_invariant(const PassCache& cache);

}  // namespace lk::cuda
