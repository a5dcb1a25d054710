// A pass on a device: its plans, and their image in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "backend/cuda/append/append.h"
#include "backend/cuda/attention/attention_queue.h"
#include "backend/cuda/device/pass_image.h"
#include "backend/cuda/plan/append_plan.h"
#include "backend/cuda/plan/image_layout.h"
#include "backend/cuda/plan/pass_cache.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/cuda/plan/row_plan.h"
#include "backend/cuda/plan/segments.h"
#include "backend/plugin.h"
#include "kv/cache.h"

namespace lk::cuda {

// The segments that a pass of the engine describes.
inline std::span<const lk_plugin_segment> segments_of(const lk_plugin_pass_rows& rows) {
    return {rows.segments, static_cast<size_t>(rows.n_segments)};
}

class CudaPass {
public:
    // Queues the upload of the image.
    CudaPass(const lk_plugin_pass_rows& rows, bool batch_invariant, PassImages& images, Memory& memory,
             cudaStream_t stream)
        : cache(rows.cache),
          plan(batch_invariant ? plan_rows(cache, segments_of(rows)) : plan_pass(cache, segments_of(rows))),
          schedule_(plan_append(cache, segments_of(rows))),
          layout_(plan, schedule_),
          image_(images.take()) {
        image_->reserve(memory, layout_.bytes);
        const auto write = batch_invariant ? write_rows : write_pass;
        write(plan, cache, segments_of(rows), image_->host() + layout_.plan, image_->device() + layout_.plan);
        write_append(schedule_, image_->host() + layout_.append_works, image_->host() + layout_.steps);
        for (const kv::Side side : {kv::Side::keys, kv::Side::values}) {
            const uint8_t* const from = rows.sink_rows[side_index(side)];
            uint8_t* const to = image_->host() + (sink_rows(side) - image_->device());
            for (int row = 0; row < plan.n_rows; ++row) {
                to[row] = from != nullptr ? from[row] : 0;
            }
        }
        image_->upload(layout_.bytes, stream);
    }
    CudaPass(const CudaPass&) = delete;
    CudaPass& operator=(const CudaPass&) = delete;

    const SegmentWork* works() const { return reinterpret_cast<const SegmentWork*>(image_->device() + layout_.plan); }
    QueuedAppend append() const {
        return {schedule_, reinterpret_cast<const AppendWork*>(image_->device() + layout_.append_works),
                reinterpret_cast<const PageStep*>(image_->device() + layout_.steps)};
    }

    // [n_rows] in device memory: 1 for rows that become sinks, if the side has a q8_0 ring.
    const uint8_t* sink_rows(kv::Side side) const {
        return image_->device() + layout_.sink_rows + (side == kv::Side::keys ? 0 : plan.n_rows);
    }

    // The layers whose pages are staged now that the rows of `layers` are. A pass whose attention reads no staged
    // pages, such as a decode step, stages all layers at once after the last, in one launch per side.
    std::optional<kv::Layers> layers_to_stage(kv::Layers layers) {
        first_waiting_ = std::min(first_waiting_, layers.begin);
        if (!plan.reads_staged && layers.end < cache.config().n_layer) {
            return std::nullopt;
        }
        const kv::Layers due{first_waiting_, layers.end};
        first_waiting_ = layers.end;
        return due;
    }

    const PassCache cache;
    const PassPlan plan;
    std::vector<PlannedAttention> attention;  // per attention request of the plan, from the first layer on

private:
    AppendSchedule schedule_;
    ImageLayout layout_;
    PassImages::Lent image_;
    int first_waiting_ = 0;  // of the layers that wait to be staged
};

}  // namespace lk::cuda
