// Sampling parameters of tests.
#pragma once

#include <cstdint>

#include "llama_kivi.h"

namespace lk::test {

inline lk_sampling sampling_of(float temperature, uint32_t top_k = 0, float top_p = 1, float min_p = 0) {
    lk_sampling sampling{};
    sampling.temperature = temperature;
    sampling.top_k = top_k;
    sampling.top_p = top_p;
    sampling.min_p = min_p;
    return sampling;
}

// recent: [n_recent], outlives the result.
inline lk_sampling penalized(lk_sampling sampling, float repeat, float frequency, float presence, uint32_t n_recent = 0,
                             const lk_token_count* recent = nullptr) {
    sampling.repeat_penalty = repeat;
    sampling.frequency_penalty = frequency;
    sampling.presence_penalty = presence;
    sampling.n_recent = n_recent;
    sampling.recent = recent;
    return sampling;
}

inline lk_sampling drawn_at(lk_sampling sampling, double draw) {
    sampling.draw = draw;
    return sampling;
}

inline lk_sampling kept_logits() {
    lk_sampling sampling{};
    sampling.keep_logits = 1;
    return sampling;
}

}  // namespace lk::test
