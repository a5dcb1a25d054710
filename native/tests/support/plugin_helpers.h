// Passes of host caches as plugins see them.
#pragma once

#include <span>

#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/pass_cache.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/plugin_pass.h"

namespace lk::test {

struct PluginPassView {
    PluginPassView(kv::Cache& of_cache, std::span<const kv::Segment> of_segments) : rows(of_cache, of_segments) {}

    std::span<const lk_plugin_segment> segments() const { return rows.segments(); }
    cuda::PassPlan plan() const { return cuda::plan_pass(cache, segments()); }
    cuda::AppendSchedule append() const { return cuda::plan_append(cache, segments()); }

    PluginPassRows rows;
    cuda::PassCache cache{rows.rows().cache};
};

inline cuda::PassPlan plan_pass(kv::Cache& cache, std::span<const kv::Segment> segments) {
    return PluginPassView(cache, segments).plan();
}

inline cuda::AppendSchedule plan_append(kv::Cache& cache, std::span<const kv::Segment> segments) {
    return PluginPassView(cache, segments).append();
}

}  // namespace lk::test
