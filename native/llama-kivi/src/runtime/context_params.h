// What lk_context_params mean for a model.
#pragma once

#include "kv/config.h"
#include "llama_kivi.h"
#include "model/config.h"

namespace lk {

// The cache of a context. LK_INVALID_ARGUMENT or LK_UNSUPPORTED if a number is out of its range or does not fit the
// model.
kv::CacheConfig make_cache_config(const ModelConfig& model, const lk_context_params& params);

}  // namespace lk
