// Estimates the memory of a model and a context from the file's metadata alone.
#pragma once

#include <cstdint>

#include "gguf/reader.h"
#include "llama_kivi.h"

namespace lk {

// n_gpu_layers: see lk_model_params. Throws like ModelConfig::read and make_cache_config.
lk_memory_estimate estimate_memory(const GgufFile& file, int n_gpu_layers, const lk_context_params& params);
// Bytes of the cache that a sequence of n_tokens tokens takes. Throws the same.
uint64_t estimate_sequence(const GgufFile& file, const lk_context_params& params, uint32_t n_tokens);

}  // namespace lk
