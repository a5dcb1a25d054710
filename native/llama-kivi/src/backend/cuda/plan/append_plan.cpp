#include "backend/cuda/plan/append_plan.h"

#include <algorithm>
#include <cstring>

namespace lk::cuda {

namespace {

// Most tokens of a page step that starts at `token` of a page.
int step_tokens(const kv::SideSpec& spec, int token) {
    return spec.align > 1 ? spec.align : kStepTokens - token % kStepTokens;
}

// Rows of an append that commit writes to the sinks.
struct SinkRows {
    int begin;
    int end;
};

SinkRows sink_rows(const kv::SideSpec& spec, const kv::AppendPlan& plan) {
    if (!spec.ring_in_blocks()) {
        return {0, plan.new_sinks()};
    }
    // Every staged row of a sink; those of the ring are in the sinks already.
    return {plan.n_ring, std::clamp(plan.sink_limit - plan.first_token, plan.n_ring, plan.n_ring + plan.n_rows)};
}

SideSchedule plan_side(kv::Cache& cache, kv::Side side, std::span<const kv::Segment> segments,
                       AppendSchedule& schedule) {
    const kv::SideSpec& spec = cache.spec(side);
    SideSchedule s;
    s.first_work = static_cast<int>(schedule.works.size());
    s.first_step = static_cast<int>(schedule.steps.size());
    for (const kv::Segment& segment : segments) {
        const kv::AppendPlan plan = cache.plan_append(side, segment);
        const int work = static_cast<int>(schedule.works.size());
        const SinkRows sinks = sink_rows(spec, plan);
        const uint8_t* const blocks = cache.staged_blocks(side);
        schedule.works.push_back(
            {plan.ring, plan.ring_blocks, plan.sinks, plan.tables,
             cache.staged(side) + static_cast<size_t>(segment.row) * spec.staged_width(),
             blocks == nullptr ? nullptr : blocks + static_cast<size_t>(segment.row) * spec.ring_row_bytes(),
             plan.n_rows, plan.ring_start, plan.n_ring, plan.n_leave, plan.first_kept, plan.first_token,
             plan.sink_limit, sinks.begin, sinks.end, plan.choose_tables});
        int row = 0;
        for (const kv::PageRef& run : plan.pages) {
            for (int token = run.first; token < run.end();) {
                const int n = std::min(step_tokens(spec, token), run.end() - token);
                schedule.steps.push_back({run.block->data.data(), work, row, n, token});
                row += n;
                token += n;
            }
        }
        s.max_kept = std::max(s.max_kept, plan.n_ring + plan.n_rows - plan.first_kept);
        s.max_sinks = std::max(s.max_sinks, sinks.end - sinks.begin);
        s.chooses_tables |= plan.choose_tables;
    }
    s.n_works = static_cast<int>(schedule.works.size()) - s.first_work;
    s.n_steps = static_cast<int>(schedule.steps.size()) - s.first_step;
    return s;
}

}  // namespace

AppendSchedule plan_append(kv::Cache& cache, std::span<const kv::Segment> segments) {
    AppendSchedule schedule;
    schedule.sides[0] = plan_side(cache, kv::Side::keys, segments, schedule);
    schedule.sides[1] = plan_side(cache, kv::Side::values, segments, schedule);
    return schedule;
}

void write_append(const AppendSchedule& schedule, uint8_t* host) {
    const size_t work_bytes = schedule.works.size() * sizeof(AppendWork);
    if (!schedule.works.empty()) {
        std::memcpy(host, schedule.works.data(), work_bytes);
    }
    if (!schedule.steps.empty()) {
        std::memcpy(host + work_bytes, schedule.steps.data(), schedule.steps.size() * sizeof(PageStep));
    }
}

}  // namespace lk::cuda
