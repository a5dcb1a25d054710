// Plans the append of a pass for the kernels. Host code without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cuda/plan/append_work.h"
#include "backend/cuda/plan/pass_cache.h"
#include "backend/plugin.h"

namespace lk::cuda {

static_assert(kStepTokens % kv::kValueBlockTokens == 0, "two steps must not share a word of codes");

// One side's works and steps in the schedule, and the maxima that size its launches.
struct SideSchedule {
    int first_work = 0;
    int n_works = 0;
    int first_step = 0;
    int n_steps = 0;
    int max_kept = 0;   // rows that commit copies to a ring
    int max_sinks = 0;  // rows that commit copies to sinks
    bool chooses_tables = false;
};

// The append of a pass: one work per segment for the keys, then one per segment for the values.
struct AppendSchedule {
    std::vector<AppendWork> works;
    std::vector<PageStep> steps;
    SideSchedule sides[2];

    const SideSchedule& side(kv::Side s) const { return sides[s == kv::Side::keys ? 0 : 1]; }
    // Sizes of the images: AppendWork[works], and PageStep[steps].
    size_t work_bytes() const { return works.size() * sizeof(AppendWork); }
    size_t step_bytes() const { return steps.size() * sizeof(PageStep); }
};

// The schedule is valid until the cache changes.
AppendSchedule plan_append(const PassCache& cache, std::span<const lk_plugin_segment> segments);

// Writes the images that the kernels read.
void write_append(const AppendSchedule& schedule, uint8_t* works, uint8_t* steps);

}  // namespace lk::cuda
