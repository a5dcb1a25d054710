// Normally distributed numbers for test data. std::normal_distribution computes two logarithms in long double for every
// number if the compiler does not fold them, as clang: a fifth of the time of the tests under sanitizers.
#pragma once

#include <cmath>
#include <random>

namespace lk::test {

// Marsaglia's polar method: mean 0, standard deviation 1.
class Normal {
public:
    float operator()(std::mt19937& random) {
        if (has_spare_) {
            has_spare_ = false;
            return spare_;
        }
        float x;
        float y;
        float square;
        do {
            x = 2 * uniform(random) - 1;
            y = 2 * uniform(random) - 1;
            square = x * x + y * y;
        } while (square > 1 || square == 0);
        const float factor = std::sqrt(-2 * std::log(square) / square);
        spare_ = x * factor;
        has_spare_ = true;
        return y * factor;
    }

private:
    // In [0, 1): 2^32 draws, of which the last would round to 1.
    static float uniform(std::mt19937& random) {
        return std::fmin(static_cast<float>(random()) * 0x1p-32f, 0x1.fffffep-1f);
    }

    bool has_spare_ = false;
    float spare_ = 0;
};

}  // namespace lk::test
