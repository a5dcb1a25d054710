// RoPE: the frequency of each pair of a head, and the angles of a batch.
#pragma once

#include <span>
#include <vector>

#include "kv/cache.h"

namespace lk {

enum class RopeScaling {
    none,
    linear,  // divides all frequencies by the factor
    yarn,    // divides low frequencies by the factor, keeps high ones (arXiv 2309.00071)
};

struct RopeConfig {
    int n_rot = 0;  // elements of a head that are rotated
    float freq_base = 10000;
    RopeScaling scaling = RopeScaling::none;
    float factor = 1;          // extended context length / original context length
    int original_context = 0;  // yarn: original training context length in tokens
    float attn_factor = 1;     // yarn: multiplies the magnitude
    float beta_fast = 32;      // yarn: pairs with more turns than this over the original context keep their frequency
    float beta_slow = 1;       // yarn: pairs with fewer turns are divided by the factor; a linear ramp in between
};

struct RopeTable {
    std::vector<float> frequency;  // [n_rot/2] radians per position
    float magnitude = 1;           // factor on the rotated vectors

    // divisors: Llama 3.1's rope_freqs, [n_rot/2]; empty: none.
    RopeTable() = default;
    RopeTable(const RopeConfig& config, std::span<const float> divisors);

    bool finite() const;  // whether all frequencies and the magnitude are finite
};

// Writes cos_sin[n, n_rot/2, 2] for the segments' rows at the next positions of their sequences.
void rope_angles(const RopeTable& table, const kv::Cache& cache, std::span<const kv::Segment> segments, float* cos_sin);

}  // namespace lk
