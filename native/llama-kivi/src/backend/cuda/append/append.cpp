#include "backend/cuda/append/append.h"

#include <cstring>

#include "backend/cuda/append/kernels.h"

namespace lk::cuda {

using kv::Side;

SideShape shape_of(const kv::SideSpec& spec, int n_ubatch) {
    return {spec.format,
            spec.ageing.trigger,
            spec.ageing.leave,
            spec.align,
            spec.sinks,
            n_ubatch,
            static_cast<int>(spec.table_bytes())};
}

void Append::schedule(kv::Cache& cache, std::span<const kv::Segment> segments, cudaStream_t stream) {
    plan_append(cache, segments, schedule_);
    const size_t work_bytes = schedule_.works.size() * sizeof(AppendWork);
    const size_t step_bytes = schedule_.steps.size() * sizeof(PageStep);
    const size_t bytes = work_bytes + step_bytes;
    if (on_device_.size() < bytes) {
        on_device_ = Buffer<uint8_t>(memory_, bytes + bytes / 2);
    }
    uint8_t* const host = on_host_.reserve(bytes);
    std::memcpy(host, schedule_.works.data(), work_bytes);
    if (step_bytes > 0) {
        std::memcpy(host + work_bytes, schedule_.steps.data(), step_bytes);
    }
    LK_CUDA(cudaMemcpyAsync(on_device_.data(), host, bytes, cudaMemcpyHostToDevice, stream));
    scheduled_ = true;
}

void Append::stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers,
                         cudaStream_t stream) {
    if (!scheduled_) {
        schedule(cache, segments, stream);
    }
    const kv::CacheConfig& c = cache.config();
    const HeadRange heads{layers.begin * c.n_head_kv, layers.count() * c.n_head_kv};
    for (const Side side : {Side::keys, Side::values}) {
        const SideSchedule& s = schedule_.side(side);
        const SideShape shape = shape_of(cache.spec(side), c.n_ubatch);
        if (s.chooses_tables) {
            choose_tables(shape, works() + s.first_work, s.n_works, heads, stream);
        }
        if (s.n_steps > 0) {
            cuda::stage_pages(shape, works(), steps() + s.first_step, s.n_steps, heads, stream);
        }
    }
    LK_CUDA(cudaGetLastError());
}

void Append::commit(kv::Cache& cache, std::span<const kv::Segment> segments, cudaStream_t stream) {
    const kv::CacheConfig& c = cache.config();
    for (const Side side : {Side::keys, Side::values}) {
        const SideSchedule& s = schedule_.side(side);
        commit_rows(shape_of(cache.spec(side), c.n_ubatch), works() + s.first_work, s.n_works, s.max_sinks, s.max_kept,
                    c.n_layer * c.n_head_kv, stream);
    }
    scheduled_ = false;
    LK_CUDA(cudaGetLastError());
    cache.finish_append(segments);
}

}  // namespace lk::cuda
