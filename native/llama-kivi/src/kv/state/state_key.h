// Settings of model and cache that a saved sequence depends on.
#pragma once

#include <cstdint>

#include "kv/cache.h"

namespace lk::kv {

// Model settings that determine the keys and values of given tokens. Strings are padded with zeros.
struct ModelKey {
    char architecture[16] = {};
    int32_t n_head = 0;
    int32_t window = 0;
    float norm_eps = 0;
    int32_t synthetic = 0;       // weights are generated
    int32_t rope_dims = 0;       // rotated elements per head
    float rope_base = 0;         //
    char rope_scaling[8] = {};   // "none", "linear" or "yarn"
    float rope_factor = 0;       // linear, yarn
    int32_t rope_context = 0;    // yarn: original context
    float rope_attn_factor = 0;  // yarn
    float rope_beta_fast = 0;    // yarn
    float rope_beta_slow = 0;    // yarn
    int32_t reserved = 0;
    uint64_t rope_divisors = 0;  // hash of rope_freqs.weight
    uint64_t weights = 0;        // hash of a sample of the other weights
};

// Metadata keys that differ between architectures, without the architecture prefix; for messages.
struct SettingNames {
    const char* norm_eps = "attention.layer_norm_rms_epsilon";
};

// As stored in the header of a state.
struct StateKey {
    int32_t n_layer;
    int32_t n_head_kv;
    int32_t head_size;
    int32_t type_k;
    int32_t type_v;
    int32_t group_k;  // 0 unless that side is a KIVI type
    int32_t group_v;
    int32_t residual_k;  // 0: no residual ring
    int32_t residual_v;
    int32_t sinks_k;
    int32_t sinks_v;
    int32_t refined;  // refined channels of the keys
    int32_t ring_k;   // RowType
    int32_t ring_v;
    int32_t key_centre;  // whether keys are stored minus a centre
    int32_t reserved;    // 0; aligns `model`
    ModelKey model;
};
// There must be no padding: its bytes would be undefined.
static_assert(sizeof(ModelKey) == 12 * 4 + 16 + 8 + 2 * 8 && sizeof(StateKey) == 16 * 4 + sizeof(ModelKey));

StateKey make_state_key(CacheParts parts, const ModelKey& model);

// Throws LK_BAD_STATE if the keys differ; the message lists every differing setting with both values.
void check_state_key(const StateKey& saved, const StateKey& here, const SettingNames& names);

}  // namespace lk::kv
