// Splits work so that all multiprocessors stay busy to the end.
#pragma once

#include <algorithm>
#include <limits>

namespace lk::cuda {

// Number of splits of a sequence's tokens that minimizes the modelled time: waves of thread blocks times the steps of
// the longest block.
//   n_blocks  thread blocks per split
//   n_pieces  steps of a block without splitting
//   n_slots   thread blocks that run at once
//   overhead  per block, in steps
inline int choose_splits(int n_blocks, int n_pieces, int n_slots, double overhead) {
    constexpr int kMost = 256;
    const int most = std::clamp(n_pieces, 1, kMost);
    int best = 1;
    double least = std::numeric_limits<double>::infinity();
    for (int splits = 1; splits <= most; ++splits) {
        const double blocks = static_cast<double>(n_blocks) * splits;
        // Many waves overlap, so a partly filled last wave costs less than a whole one.
        const double full = blocks / n_slots;
        const double waves =
            std::max(1.0, full < 4 ? static_cast<double>(static_cast<long>(full + 0.999999)) : full + 0.5);
        const double time = waves * ((n_pieces + splits - 1) / splits + overhead);
        if (time < 0.98 * least) {
            least = time;
            best = splits;
        }
    }
    return best;
}

// Consecutive steps distributed over blocks: n_each per block, one more for the first n_more blocks.
struct Shares {
    int n_blocks;
    int n_each;
    int n_more;

    // Uses at most n_slots blocks, each with at least one step. n_steps must be positive.
    static constexpr Shares of(int n_steps, int n_slots) {
        const int n_blocks = n_steps < n_slots ? n_steps : n_slots;
        return {n_blocks, n_steps / n_blocks, n_steps % n_blocks};
    }

    // First step of a block; begin(n_blocks) is the number of steps.
    constexpr int begin(int block) const { return block * n_each + (block < n_more ? block : n_more); }

    // The block of a step.
    constexpr int block_of(int step) const {
        const int of_longer = n_more * (n_each + 1);
        return step < of_longer ? step / (n_each + 1) : n_more + (step - of_longer) / n_each;
    }
};

}  // namespace lk::cuda
