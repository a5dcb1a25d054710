// Sizes and types of a cache, their checks, and what follows from them for keys and for values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "kv/kivi_format.h"
#include "llama_kivi.h"

namespace lk::kv {

// Sizes and types of a cache, checked.
struct CacheConfig {
    int n_layer = 0;
    int first_layer = 0;  // of the model, that this cache holds as layer 0
    int n_head_kv = 0;
    int head_size = 0;  // D
    int n_ctx = 0;
    int n_seq_max = 0;
    int n_seq_ready = 0;  // that have their rings from the start; 0: all
    int n_ubatch = 0;
    lk_cache_params params{};

    int ready_sequences() const { return n_seq_ready > 0 ? n_seq_ready : n_seq_max; }

    void validate() const;  // throws LK_INVALID_ARGUMENT or LK_UNSUPPORTED naming what does not fit, and what would
};

// When rows leave the ring of one side: at `trigger` rows the oldest `leave` leave together.
struct AgeingRule {
    int trigger;
    int leave;
};

// What one side (keys or values) of every sequence has in common.
struct SideSpec {
    PageFormat format;
    AgeingRule ageing;
    int sinks;  // S
    int align;  // tokens a page may be continued at a multiple of: G for quantized keys, else 1
    int n_layer;
    int n_head_kv;

    size_t head_count() const { return static_cast<size_t>(n_layer) * n_head_kv; }
    size_t block_bytes() const { return head_count() * format.page_bytes; }
    size_t ring_elements() const { return head_count() * ageing.trigger * format.head_size; }
    size_t sink_elements() const { return head_count() * sinks * format.head_size; }
    // Bytes of a head's table in a device's memory: int32 exponent, then half mu[D] (values of kivi2) or uint16
    // refined[D/4] (its keys).
    size_t table_bytes() const {
        return sizeof(int32_t) + (format.scale_kind == ScaleKind::byte_token ? format.head_size * sizeof(half_t)
                                                                             : (format.rows - format.head_size) * 2);
    }
};

SideSpec make_side_spec(const CacheConfig& config, Side side);

}  // namespace lk::kv
