#include "kv/round_trip.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

void read_row(const SideView& view, int token, const Rotation& rotation, float* out) {
    const int d = view.spec->format.head_size;
    const auto from_half = [&](const half_t* row) { std::transform(row, row + d, out, half_to_float); };
    if (token < view.n_sinks) {
        from_half(view.sinks + token * d);
    } else if (token < view.n_paged) {
        size_t page = 0;
        for (; token >= view.pages[page].count; ++page) {
            token -= view.pages[page].count;
        }
        const PageRef& ref = view.pages[page];
        dequantize_row(view.spec->format, *view.table, view.page(page), ref.first + token, out);
        if (view.spec->format.side == Side::keys && ref.frame != 0) {
            rotate_heads(rotation, -ref.frame, out, 1, d);
        }
    } else if (token < view.length()) {
        from_half(view.ring + (view.ring_start + token - view.n_paged) % view.spec->ageing.trigger * d);
    } else {
        from_half(view.staged + (token - view.length()) * d);
    }
}

void round_trip(CacheConfig config, int n, float* k, float* v) {
    constexpr int kMostAtOnce = 512;  // what is cached does not depend on it
    config.n_layer = 1;
    config.n_seq_max = 1;
    config.n_ctx = n;
    config.n_ubatch = std::min(n, kMostAtOnce);
    config.validate();
    Cache cache(config);
    ThreadPool pool(1);
    const auto to_half = [](const float* x, int64_t count, half_t* out) {
        std::transform(x, x + count, out, float_to_half);
    };
    const size_t width = static_cast<size_t>(config.n_head_kv) * config.head_size;
    for (int begin = 0; begin < n; begin += config.n_ubatch) {
        const Segment segment{0, 0, std::min(config.n_ubatch, n - begin)};
        cache.reserve({&segment, 1});
        cache.stage(Side::keys, 0, segment.n_rows, k + begin * width, to_half);
        cache.stage(Side::values, 0, segment.n_rows, v + begin * width, to_half);
        cache.prepare_commit({&segment, 1}, pool.size());
        cache.commit({&segment, 1}, pool);
    }
    for (int head = 0; head < config.n_head_kv; ++head) {
        const SideView keys = cache.sequence(0).k.view(0, head);
        const SideView values = cache.sequence(0).v.view(0, head);
        for (int i = 0; i < n; ++i) {
            const size_t at = (static_cast<size_t>(i) * config.n_head_kv + head) * config.head_size;
            read_row(keys, i, {}, k + at);
            read_row(values, i, {}, v + at);
        }
    }
}

}  // namespace lk::kv
