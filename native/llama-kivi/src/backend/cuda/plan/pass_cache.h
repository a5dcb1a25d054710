// The cache of a pass as the engine describes it, and its sides' specs. Host code without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/plugin.h"
#include "kv/config.h"

namespace lk::cuda {

// Index of a side in the arrays of backend/plugin.h.
constexpr size_t side_index(kv::Side side) {
    return side == kv::Side::keys ? LK_PLUGIN_KEYS : LK_PLUGIN_VALUES;
}

class PassCache {
public:
    explicit PassCache(const lk_plugin_cache& cache)
        : config_(config_of(cache)),
          k_spec_(kv::make_side_spec(config_, kv::Side::keys)),
          v_spec_(kv::make_side_spec(config_, kv::Side::values)),
          buffers_(cache) {}

    const kv::CacheConfig& config() const { return config_; }
    const kv::SideSpec& spec(kv::Side side) const { return side == kv::Side::keys ? k_spec_ : v_spec_; }
    // See kv::Cache.
    half_t* staged(kv::Side side) const { return buffers_.staged[side_index(side)]; }
    uint8_t* staged_blocks(kv::Side side) const { return buffers_.staged_blocks[side_index(side)]; }

private:
    static kv::CacheConfig config_of(const lk_plugin_cache& cache) {
        kv::CacheConfig c;
        c.n_layer = cache.n_layer;
        c.first_layer = cache.first_layer;
        c.n_head_kv = cache.n_head_kv;
        c.head_size = cache.head_size;
        c.n_ctx = cache.n_ctx;
        c.n_seq_max = cache.n_seq_max;
        c.n_ubatch = cache.n_ubatch;
        c.params = cache.params;
        return c;
    }

    kv::CacheConfig config_;
    kv::SideSpec k_spec_;
    kv::SideSpec v_spec_;
    lk_plugin_cache buffers_;
};

}  // namespace lk::cuda
