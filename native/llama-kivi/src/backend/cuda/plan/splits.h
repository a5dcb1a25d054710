// How work is cut and shared, so that all multiprocessors have some to the end.
#pragma once

#include <algorithm>
#include <limits>

namespace lk::cuda {

// Into how many parts a sequence's tokens are cut. n_blocks: of one split. n_pieces: steps of a block that is not
// split. n_slots: blocks that run at once. overhead: of a block, in steps. The time is that of the waves of blocks,
// each as long as its longest.
inline int choose_splits(int n_blocks, int n_pieces, int n_slots, double overhead) {
    constexpr int kMost = 256;
    const int most = std::clamp(n_pieces, 1, kMost);
    int best = 1;
    double least = std::numeric_limits<double>::infinity();
    for (int splits = 1; splits <= most; ++splits) {
        const double blocks = static_cast<double>(n_blocks) * splits;
        // Many waves overlap: what the last one leaves idle counts less than a wave.
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

// Steps, one after the other, shared among blocks: each has n_each, the first n_more one more.
struct Shares {
    int n_blocks;
    int n_each;
    int n_more;

    // Among at most n_slots blocks, none without a step; n_steps is positive.
    static constexpr Shares of(int n_steps, int n_slots) {
        const int n_blocks = n_steps < n_slots ? n_steps : n_slots;
        return {n_blocks, n_steps / n_blocks, n_steps % n_blocks};
    }

    // The first step of a block; of n_blocks: all.
    constexpr int begin(int block) const { return block * n_each + (block < n_more ? block : n_more); }

    // The block that has a step.
    constexpr int block_of(int step) const {
        const int of_longer = n_more * (n_each + 1);
        return step < of_longer ? step / (n_each + 1) : n_more + (step - of_longer) / n_each;
    }
};

}  // namespace lk::cuda
