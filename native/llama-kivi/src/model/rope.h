// Rotary positions: how fast each pair of a head turns, and the angles of a batch.
#pragma once

#include <span>
#include <vector>

#include "kv/cache.h"

namespace lk {

enum class RopeScaling {
    none,
    linear,  // positions are divided by the factor
    yarn,    // slow pairs are, fast ones are not (arXiv 2309.00071)
};

struct RopeConfig {
    int n_rot = 0;  // elements of a head that are rotated
    float freq_base = 10000;
    RopeScaling scaling = RopeScaling::none;
    float factor = 1;          // times the context length the model was first trained for
    int original_context = 0;  // that length, in tokens (yarn)
    float attn_factor = 1;     // yarn: times the magnitude
    float beta_fast = 32;      // yarn: pairs that turn more often than this over the original context keep their speed
    float beta_slow = 1;       // those that turn less often are divided by the factor; between, a ramp
};

struct RopeTable {
    std::vector<float> frequency;  // [n_rot/2] radians a position
    float magnitude = 1;           // of the rotated vectors

    // divisors: [n_rot/2] of Llama 3.1's rope_freqs tensor; empty: none.
    RopeTable() = default;
    RopeTable(const RopeConfig& config, std::span<const float> divisors);

    bool finite() const;  // no angle of any position is NaN
};

// cos_sin[n, n_rot/2, 2] for the rows of the segments, which continue their sequences.
void rope_angles(const RopeTable& table, const kv::Cache& cache, std::span<const kv::Segment> segments, float* cos_sin);

}  // namespace lk
