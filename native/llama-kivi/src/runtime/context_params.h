// The cache configuration that lk_context_params give for a model.
#pragma once

#include "kv/config.h"
#include "llama_kivi.h"
#include "model/config.h"

namespace lk {

// Throws LK_INVALID_ARGUMENT or LK_UNSUPPORTED if a parameter is out of range or does not fit the model.
kv::CacheConfig make_cache_config(const ModelConfig& model, const lk_context_params& params);

// Throws LK_UNSUPPORTED for settings that the CUDA kernels do not implement.
void check_device_cache(const kv::CacheConfig& config);

}  // namespace lk
