// Where the parts of a pass's image are. Host code without CUDA.
#pragma once

#include <cstddef>

#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/pass_plan.h"

namespace lk::cuda {

// Offsets in bytes. Those that launches of a decode step refer to depend on the numbers of segments and rows only, not
// on the sequences' lengths, so that a graph of the step serves the next steps as well.
struct ImageLayout {
    static constexpr size_t kAlignment = 16;

    size_t append_works = 0;
    size_t sink_rows;  // uint8 [2, n_rows]: keys, values
    size_t plan;       // see PassPlan::bytes
    size_t steps;
    size_t bytes;

    ImageLayout(const PassPlan& pass, const AppendSchedule& append)
        : sink_rows(append.work_bytes()),
          plan(align(sink_rows + 2 * static_cast<size_t>(pass.n_rows))),
          steps(align(plan + pass.bytes())),
          bytes(steps + append.step_bytes()) {}

private:
    static constexpr size_t align(size_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }
};

}  // namespace lk::cuda
