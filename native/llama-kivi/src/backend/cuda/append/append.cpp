#include "backend/cuda/append/append.h"

#include "backend/cuda/append/kernels.h"
#include "backend/cuda/device/memory.h"
#include "backend/cuda/plan/pass_plan.h"

namespace lk::cuda {

using kv::Side;

void stage_pages(const PassCache& cache, const QueuedAppend& append, kv::Layers layers, Stream& stream) {
    const kv::CacheConfig& c = cache.config();
    const HeadRange heads{layers.begin * c.n_head_kv, layers.count() * c.n_head_kv};
    for (const Side side : {Side::keys, Side::values}) {
        const SideSchedule& s = append.schedule.side(side);
        const SideShape shape = side_shape(cache.spec(side), c.n_ubatch);
        if (s.chooses_tables) {
            choose_tables(shape, append.works + s.first_work, s.n_works, heads, stream);
        }
        if (s.n_steps > 0) {
            stage_pages(shape, append.works, append.steps + s.first_step, s.n_steps, heads, stream);
        }
    }
    LK_CUDA(cudaGetLastError());
}

void commit(const PassCache& cache, const QueuedAppend& append, Stream& stream) {
    const kv::CacheConfig& c = cache.config();
    for (const Side side : {Side::keys, Side::values}) {
        const SideSchedule& s = append.schedule.side(side);
        commit_rows(side_shape(cache.spec(side), c.n_ubatch), append.works + s.first_work, s.n_works, s.max_sinks,
                    s.max_kept, c.n_layer * c.n_head_kv, stream);
    }
    LK_CUDA(cudaGetLastError());
}

}  // namespace lk::cuda
