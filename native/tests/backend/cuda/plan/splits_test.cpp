// Splitting and distribution of GPU work: host functions.
#include "backend/cuda/plan/splits.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lk::cuda {
namespace {

constexpr double kOverhead = 1.5;

TEST(Splits, FillTheDeviceWhenBlocksAreFew) {
    // One sequence, 8 heads, 1,000 steps, room for 396 blocks: a single wave that is nearly full.
    const int splits = choose_splits(8, 1000, 396, kOverhead);
    EXPECT_GT(8 * splits, 300);
    EXPECT_LE(8 * splits, 396);
}

TEST(Splits, NoneWhenBlocksAreMany) {
    EXPECT_EQ(choose_splits(8192, 16, 396, kOverhead), 1);
    EXPECT_EQ(choose_splits(396, 16, 396, kOverhead), 1);
}

TEST(Splits, DoNotLeaveAWaveNearlyEmpty) {
    // 256 blocks, room for 396: 3 splits give 1.94 waves, 4 would give 2.6.
    const int splits = choose_splits(256, 200, 396, kOverhead);
    const double waves = 256.0 * splits / 396;
    EXPECT_GT(waves - static_cast<int>(waves), 0.5);
}

TEST(Splits, AreNeverMoreThanSteps) {
    EXPECT_EQ(choose_splits(1, 1, 396, kOverhead), 1);
    EXPECT_LE(choose_splits(1, 3, 396, kOverhead), 3);
    EXPECT_EQ(choose_splits(1, 0, 396, kOverhead), 1);
}

}  // namespace
// Every step belongs to exactly one block, in order; block sizes differ by at most one.
TEST(Shares, AreWholeAndEven) {
    for (const int n_slots : {1, 3, 7, 132}) {
        for (const int n_steps : {1, 2, 3, 6, 7, 8, 131, 132, 133, 700, 3680}) {
            const Shares shares = Shares::of(n_steps, n_slots);
            EXPECT_EQ(shares.n_blocks, std::min(n_steps, n_slots));
            EXPECT_EQ(shares.begin(0), 0);
            EXPECT_EQ(shares.begin(shares.n_blocks), n_steps);
            for (int block = 0; block < shares.n_blocks; ++block) {
                const int begin = shares.begin(block);
                const int end = shares.begin(block + 1);
                EXPECT_GE(end - begin, n_steps / shares.n_blocks);
                EXPECT_LE(end - begin, n_steps / shares.n_blocks + 1);
                for (int step = begin; step < end; ++step) {
                    EXPECT_EQ(shares.block_of(step), block) << n_steps << " steps, " << n_slots << " slots";
                }
            }
        }
    }
}

}  // namespace lk::cuda
