// The key of a model in saved states.
#pragma once

#include <span>

#include "gguf/reader.h"
#include "kv/state/state_key.h"
#include "model/config.h"

namespace lk {

// Llama 3.1's tensor of divisors of the RoPE frequencies.
inline constexpr const char* kRopeDivisors = "rope_freqs.weight";

// Collects every setting that affects the keys and values of a token, and a hash of the weights.
kv::ModelKey make_model_key(const GgufFile& file, const ModelConfig& config, std::span<const float> rope_divisors);

}  // namespace lk
