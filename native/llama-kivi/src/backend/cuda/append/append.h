// stage_pages and commit on a device: queues the kernels of a scheduled append.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/append_work.h"
#include "backend/cuda/plan/pass_cache.h"
#include "kv/cache.h"

namespace lk::cuda {

// The append of a pass: its schedule, and the works and steps in device memory.
struct QueuedAppend {
    const AppendSchedule& schedule;
    const AppendWork* works;
    const PageStep* steps;
};

// See Backend::stage_pages and commit.
void stage_pages(const PassCache& cache, const QueuedAppend& append, kv::Layers layers, Stream& stream);
void commit(const PassCache& cache, const QueuedAppend& append, Stream& stream);

}  // namespace lk::cuda
