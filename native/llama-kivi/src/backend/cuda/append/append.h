// Staged pages and commits of a backend: schedules a pass's append and queues its kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "backend/cuda/append/plan.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

// What the kernels of a side have in common.
SideShape shape_of(const kv::SideSpec& spec, int n_ubatch);

class Append {
public:
    explicit Append(Memory& memory) : memory_(memory) {}

    // Forgets the append of a pass that was not committed.
    void begin() { scheduled_ = false; }
    // See Backend::stage_pages and commit. The first stage_pages of a pass schedules its append and has all memory
    // that the others and commit need.
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
    bool scheduled_ = false;     // for the pass
    PinnedBuffer on_host_;       // works, then steps
    Buffer<uint8_t> on_device_;  // the same
};

}  // namespace lk::cuda
