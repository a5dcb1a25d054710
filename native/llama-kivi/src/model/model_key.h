// What a saved state depends on of its model.
#pragma once

#include <span>

#include "gguf/reader.h"
#include "kv/state_key.h"
#include "model/config.h"

namespace lk {

// The tensor of Llama 3.1 by which it divides each rotary frequency.
inline constexpr const char* kRopeDivisors = "rope_freqs.weight";

// Every setting that decides which keys and values come out of the same tokens and weights.
kv::ModelKey make_model_key(const GgufFile& file, const ModelConfig& config, std::span<const float> rope_divisors);

}  // namespace lk
