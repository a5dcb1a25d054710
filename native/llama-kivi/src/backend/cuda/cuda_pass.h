// A pass on a device: its plans, and their image in device memory, followed by the flags of sink rows.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/append/append.h"
#include "backend/cuda/attention/attention_queue.h"
#include "backend/cuda/device/pass_image.h"
#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/cuda/plan/row_plan.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

class CudaPass final : public Pass {
public:
    // Queues the upload of the image.
    CudaPass(kv::Cache& of_cache, std::span<const kv::Segment> of_segments, bool batch_invariant, PassImages& images,
             Memory& memory, cudaStream_t stream)
        : Pass(of_cache, of_segments),
          plan(batch_invariant ? plan_rows(of_cache, of_segments) : plan_pass(of_cache, of_segments)),
          attention(plan.groups.size()),
          schedule_(plan_append(of_cache, of_segments)),
          image_(images.take()) {
        const size_t flags = plan.bytes() + schedule_.bytes();
        const size_t bytes = flags + 2 * static_cast<size_t>(plan.n_rows);
        image_->reserve(memory, bytes);
        write_pass(plan, of_cache, image_->host(), image_->device());
        write_append(schedule_, image_->host() + plan.bytes());
        for (const kv::Side side : {kv::Side::keys, kv::Side::values}) {
            uint8_t* const to = image_->host() + (sink_rows(side) - image_->device());
            for (int row = 0; row < plan.n_rows; ++row) {
                to[row] = of_cache.is_sink_row(side, row) ? 1 : 0;
            }
        }
        image_->upload(bytes, stream);
    }

    const SegmentWork* works() const { return reinterpret_cast<const SegmentWork*>(image_->device()); }
    QueuedAppend append() const {
        const auto* const append_works = reinterpret_cast<const AppendWork*>(image_->device() + plan.bytes());
        return {schedule_, append_works, reinterpret_cast<const PageStep*>(append_works + schedule_.works.size())};
    }

    // [n_rows] in device memory: 1 for rows that become sinks, if the side has a q8_0 ring.
    const uint8_t* sink_rows(kv::Side side) const {
        return image_->device() + plan.bytes() + schedule_.bytes() + (side == kv::Side::keys ? 0 : plan.n_rows);
    }

    // The layers whose pages are staged now that the rows of `layers` are. A pass whose attention reads no staged
    // pages, such as a decode step, stages all layers at once after the last, in one launch per side.
    std::optional<kv::Layers> layers_to_stage(kv::Layers layers) {
        first_waiting_ = std::min(first_waiting_, layers.begin);
        if (!plan.reads_staged && layers.end < cache().config().n_layer) {
            return std::nullopt;
        }
        const kv::Layers due{first_waiting_, layers.end};
        first_waiting_ = layers.end;
        return due;
    }

    const PassPlan plan;
    std::vector<std::optional<PlannedAttention>> attention;  // per group of the plan, from its first layer on

private:
    AppendSchedule schedule_;
    PassImages::Lent image_;
    int first_waiting_ = 0;  // of the layers that wait to be staged
};

}  // namespace lk::cuda
