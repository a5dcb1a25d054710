// A pass on a device: its plans, and their image in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/append/append.h"
#include "backend/cuda/attention/attention_queue.h"
#include "backend/cuda/device/pass_image.h"
#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

class CudaPass final : public Pass {
public:
    // Queues the upload of the image.
    CudaPass(kv::Cache& of_cache, std::span<const kv::Segment> of_segments, PassImages& images, Memory& memory,
             cudaStream_t stream)
        : Pass(of_cache, of_segments),
          plan(plan_pass(of_cache, of_segments)),
          attention(plan.groups.size()),
          schedule_(plan_append(of_cache, of_segments)),
          image_(images.take()) {
        const size_t bytes = plan.bytes() + schedule_.bytes();
        image_->reserve(memory, bytes);
        write_pass(plan, of_cache, image_->host(), image_->device());
        write_append(schedule_, image_->host() + plan.bytes());
        image_->upload(bytes, stream);
    }

    const SegmentWork* works() const { return reinterpret_cast<const SegmentWork*>(image_->device()); }
    QueuedAppend append() const {
        const auto* const append_works = reinterpret_cast<const AppendWork*>(image_->device() + plan.bytes());
        return {schedule_, append_works, reinterpret_cast<const PageStep*>(append_works + schedule_.works.size())};
    }

    const PassPlan plan;
    std::vector<std::optional<PlannedAttention>> attention;  // per group of the plan, from its first layer on

private:
    AppendSchedule schedule_;
    PassImages::Lent image_;
};

}  // namespace lk::cuda
