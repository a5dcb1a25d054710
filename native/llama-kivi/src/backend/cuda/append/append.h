// stage_pages and commit on a device: schedules the append of a pass and queues its kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

// Shape of one side, for the kernels.
SideShape shape_of(const kv::SideSpec& spec, int n_ubatch);

class Append {
public:
    explicit Append(Memory& memory) : memory_(memory) {}

    // Discards the append of a pass that was not committed.
    void begin() { scheduled_ = false; }
    // See Backend::stage_pages and commit. The first stage_pages of a pass schedules its append and allocates all
    // memory that later calls of the pass need.
    void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers, cudaStream_t stream);
    void commit(kv::Cache& cache, std::span<const kv::Segment> segments, cudaStream_t stream);

private:
    void schedule(kv::Cache& cache, std::span<const kv::Segment> segments, cudaStream_t stream);
    const AppendWork* works() const { return reinterpret_cast<const AppendWork*>(on_device_.data()); }
    const PageStep* steps() const {
        return reinterpret_cast<const PageStep*>(on_device_.data() + schedule_.works.size() * sizeof(AppendWork));
    }

    Memory& memory_;
    AppendSchedule schedule_;
    bool scheduled_ = false;     // for the current pass
    PinnedBuffer on_host_;       // works, then steps
    Buffer<uint8_t> on_device_;  // copy of on_host_
};

}  // namespace lk::cuda
