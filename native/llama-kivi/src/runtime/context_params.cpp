#include "runtime/context_params.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kv/budget.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/config.h"
#include "llama_kivi.h"
#include "model/config.h"

namespace lk {

kv::CacheConfig make_cache_config(const ModelConfig& model, const lk_context_params& params) {
    constexpr uint32_t kMaxContext = 1u << 30;
    LK_CHECK(params.n_ctx <= kMaxContext, LK_INVALID_ARGUMENT, "n_ctx is %u; at most %u tokens", params.n_ctx,
             kMaxContext);
    LK_CHECK(params.n_seq_max >= 1 && params.n_seq_max <= 1u << 16, LK_INVALID_ARGUMENT,
             "n_seq_max is %u; it must be 1 to 65536", params.n_seq_max);
    LK_CHECK(params.n_ubatch >= 1 && params.n_ubatch <= 1u << 16, LK_INVALID_ARGUMENT,
             "n_ubatch is %u; it must be 1 to 65536", params.n_ubatch);
    LK_CHECK(params.n_threads <= 1024, LK_INVALID_ARGUMENT, "n_threads is %u; at most 1024", params.n_threads);
    kv::CacheConfig c;
    c.n_layer = model.n_layer;
    c.n_head_kv = model.n_head_kv;
    c.head_size = model.head_size;
    c.n_ctx = static_cast<int>(params.n_ctx == 0 ? model.n_ctx_train : params.n_ctx);
    c.n_seq_max = static_cast<int>(params.n_seq_max);
    c.n_seq_ready =
        static_cast<int>(std::min(params.n_seq_ready, params.n_seq_max + 1));  // validate rejects n_seq_max + 1
    c.n_ubatch = std::min(static_cast<int>(params.n_ubatch), c.n_ctx);
    c.params = params.cache;
    c.validate();
    const uint64_t least = kv::sequence_bytes(c, 1);
    LK_CHECK(
        params.cache.memory_budget == 0 || params.cache.memory_budget >= least, LK_INVALID_ARGUMENT,
        "cache.memory_budget is %llu bytes; one sequence takes at least %llu: raise the budget, or leave it out for "
        "no limit",
        static_cast<unsigned long long>(params.cache.memory_budget), static_cast<unsigned long long>(least));
    return c;
}

void check_device_cache(const kv::CacheConfig& config) {
    // The kernel that chooses head tables keeps a number per row of the ring in shared memory.
    constexpr int kMostRows = 1 << 15;
    for (const kv::Side side : {kv::Side::keys, kv::Side::values}) {
        const kv::SideSpec spec = kv::make_side_spec(config, side);
        const lk_cache_type type = spec.format.type;
        const char* const name = side == kv::Side::keys ? "keys" : "values";
        LK_CHECK(!kv::has_table(spec.format) || spec.ageing.trigger <= kMostRows, LK_UNSUPPORTED,
                 "%s: cache.residual is %d; the GPU supports at most %d with %s and cache.group %d; use a smaller one, "
                 "or leave all layers on the CPU",
                 name, config.params.residual, kMostRows - spec.ageing.leave, lk_cache_type_name(type),
                 spec.format.group);
    }
}

}  // namespace lk
