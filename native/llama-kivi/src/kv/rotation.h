// RoPE of keys, needed when cached tokens move to other positions.
#pragma once

#include <span>

namespace lk {

// Which elements of a head form a rotated pair.
enum class RopePairs {
    adjacent,  // (2i, 2i+1): llama
    halves,    // (i, i + n_rot/2): falcon
};

namespace kv {

struct Rotation {
    std::span<const float> frequency;  // [n_rot/2] radians per position
    RopePairs pairs = RopePairs::adjacent;
};

// Rotates heads [n_heads, head_size] by a number of positions, which may be negative.
void rotate_heads(const Rotation& rotation, int positions, float* heads, int n_heads, int head_size);

}  // namespace kv
}  // namespace lk
