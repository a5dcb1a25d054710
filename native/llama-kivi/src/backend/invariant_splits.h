// How a batch-invariant pass on a GPU splits a sequence's tokens; the memory estimate counts the partial results.
#pragma once

namespace lk {

// Splits of a batch-invariant pass: ranges of steps, independent of the batch. The first kShort are short, so that many
// thread blocks share a sequence; later ones are kRatio times as long, because every split writes partial results.
struct InvariantSplits {
    static constexpr int kSteps = 4;   // of a short split: one per warp
    static constexpr int kShort = 32;  // splits
    static constexpr int kRatio = 8;

    // First step of a split.
    static constexpr int begin(int split) {
        return split <= kShort ? split * kSteps : (kShort + (split - kShort) * kRatio) * kSteps;
    }
    // Splits of n_steps steps.
    static constexpr int count(int n_steps) {
        const int n_short = (n_steps + kSteps - 1) / kSteps;
        return n_short <= kShort ? n_short : kShort + (n_short - kShort + kRatio - 1) / kRatio;
    }
};

}  // namespace lk
