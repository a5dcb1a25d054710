// How a model rotates its keys, for a cache whose tokens move to other positions.
#pragma once

#include <span>

namespace lk {

// Which two elements of a head a rotation pairs.
enum class RopePairs {
    adjacent,  // (2i, 2i+1): llama
    halves,    // (i, i + n_rot/2): falcon
};

namespace kv {

struct Rotation {
    std::span<const float> frequency;  // [n_rot/2] radians a position
    RopePairs pairs = RopePairs::adjacent;
};

// Turns heads [n_heads, head_size] by a number of positions, forward or back.
void rotate_heads(const Rotation& rotation, int positions, float* heads, int n_heads, int head_size);

}  // namespace kv
}  // namespace lk
