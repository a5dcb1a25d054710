#include "kv/rotation.h"

#include <cmath>
#include <cstddef>

namespace lk::kv {

void rotate_heads(const Rotation& rotation, int positions, float* heads, int n_heads, int head_size) {
    const size_t n_pairs = rotation.frequency.size();
    for (size_t j = 0; j < n_pairs; ++j) {
        const double angle = static_cast<double>(positions) * rotation.frequency[j];
        const float c = static_cast<float>(std::cos(angle));
        const float s = static_cast<float>(std::sin(angle));
        const bool adjacent = rotation.pairs == RopePairs::adjacent;
        const size_t first = adjacent ? 2 * j : j;
        const size_t second = adjacent ? first + 1 : j + n_pairs;
        for (int h = 0; h < n_heads; ++h) {
            float* head = heads + static_cast<ptrdiff_t>(h) * head_size;
            const float a = head[first];
            const float b = head[second];
            head[first] = a * c - b * s;
            head[second] = a * s + b * c;
        }
    }
}

}  // namespace lk::kv
