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

SinkRows sink_rows(const kv::SideSpec& spec, const lk_plugin_side& side, int n_rows) {
    const int sinks = side.sink_limit - side.n_paged;
    if (!spec.ring_in_blocks()) {
        return {0, std::clamp(sinks, 0, side.n_leave)};
    }
    // Every staged row of a sink; those of the ring are in the sinks already.
    return {side.n_ring, std::clamp(sinks, side.n_ring, side.n_ring + n_rows)};
}

SideSchedule plan_side(const PassCache& cache, kv::Side side, std::span<const lk_plugin_segment> segments,
                       AppendSchedule& schedule) {
    const kv::SideSpec& spec = cache.spec(side);
    const uint8_t* const blocks = cache.staged_blocks(side);
    SideSchedule s;
    s.first_work = static_cast<int>(schedule.works.size());
    s.first_step = static_cast<int>(schedule.steps.size());
    for (const lk_plugin_segment& segment : segments) {
        const lk_plugin_side& to = segment.sides[side_index(side)];
        const int work = static_cast<int>(schedule.works.size());
        const SinkRows sinks = sink_rows(spec, to, segment.n_rows);
        schedule.works.push_back(
            {to.ring, to.ring_blocks, to.sinks, to.staged_tables,
             cache.staged(side) + static_cast<size_t>(segment.row) * spec.staged_width(),
             blocks == nullptr ? nullptr : blocks + static_cast<size_t>(segment.row) * spec.ring_row_bytes(),
             segment.n_rows, to.ring_start, to.n_ring, to.n_leave, to.first_kept, to.n_paged, to.sink_limit,
             sinks.begin, sinks.end, to.choose_tables});
        int row = 0;
        for (int r = 0; r < to.n_staged_runs; ++r) {
            const lk_plugin_run& run = to.staged_runs[r];
            const int end = run.first + run.count;
            for (int token = run.first; token < end;) {
                const int n = std::min(step_tokens(spec, token), end - token);
                schedule.steps.push_back({run.block, work, row, n, token});
                row += n;
                token += n;
            }
        }
        s.max_kept = std::max(s.max_kept, to.n_ring + segment.n_rows - to.first_kept);
        s.max_sinks = std::max(s.max_sinks, sinks.end - sinks.begin);
        s.chooses_tables |= to.choose_tables != 0;
    }
    s.n_works = static_cast<int>(schedule.works.size()) - s.first_work;
    s.n_steps = static_cast<int>(schedule.steps.size()) - s.first_step;
    return s;
}

}  // namespace

AppendSchedule plan_append(const PassCache& cache, std::span<const lk_plugin_segment> segments) {
    AppendSchedule schedule;
    schedule.sides[0] = plan_side(cache, kv::Side::keys, segments, schedule);
    schedule.sides[1] = plan_side(cache, kv::Side::values, segments, schedule);
    return schedule;
}

void write_append(const AppendSchedule& schedule, uint8_t* works, uint8_t* steps) {
    if (!schedule.works.empty()) {
        std::memcpy(works, schedule.works.data(), schedule.work_bytes());
    }
    if (!schedule.steps.empty()) {
        std::memcpy(steps, schedule.steps.data(), schedule.step_bytes());
    }
}

}  // namespace lk::cuda
