#include "backend/cpu/round_trip.h"

#include <algorithm>

#include "backend/cpu/append.h"
#include "base/thread_pool.h"
#include "kv/cache.h"
#include "kv/read_row.h"

namespace lk::cpu {

void round_trip(kv::CacheConfig config, int n, float* k, float* v) {
    constexpr int kMostAtOnce = 512;  // limits memory; the result does not depend on it
    config.n_layer = 1;
    config.n_seq_max = 1;
    config.n_ctx = n;
    config.n_ubatch = std::min(n, kMostAtOnce);
    config.validate();
    kv::Cache cache(config);
    ThreadPool pool(1);
    Append append;
    const auto to_half = [](const float* x, int64_t count, half_t* out) {
        std::transform(x, x + count, out, float_to_half);
    };
    const size_t width = static_cast<size_t>(config.n_head_kv) * config.head_size;
    for (int begin = 0; begin < n; begin += config.n_ubatch) {
        const kv::Segment segment{0, 0, std::min(config.n_ubatch, n - begin)};
        cache.reserve({&segment, 1});
        stage(cache, kv::Side::keys, 0, segment.n_rows, k + begin * width, to_half);
        stage(cache, kv::Side::values, 0, segment.n_rows, v + begin * width, to_half);
        append.stage_pages(cache, {&segment, 1}, cache.layers(), pool);
        commit(cache, {&segment, 1}, pool);
    }
    for (int head = 0; head < config.n_head_kv; ++head) {
        const kv::SideView keys = cache.sequence(0).k.view(0, head);
        const kv::SideView values = cache.sequence(0).v.view(0, head);
        for (int i = 0; i < n; ++i) {
            const size_t at = (static_cast<size_t>(i) * config.n_head_kv + head) * config.head_size;
            kv::read_row(keys, i, {}, k + at);
            kv::read_row(values, i, {}, v + at);
        }
    }
}

}  // namespace lk::cpu
