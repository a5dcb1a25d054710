// How the GPU's attention is cut: a plain function of the host.
#include "backend/cuda/splits.h"

#include <gtest/gtest.h>

namespace lk::cuda {
namespace {

constexpr double kOverhead = 1.5;

TEST(Splits, FillTheDeviceWhenBlocksAreFew) {
    // One sequence of 8 heads over 1,000 steps, room for 396 blocks: nearly all of it is used, in one wave.
    const int splits = choose_splits(8, 1000, 396, kOverhead);
    EXPECT_GT(8 * splits, 300);
    EXPECT_LE(8 * splits, 396);
}

TEST(Splits, NoneWhenBlocksAreMany) {
    EXPECT_EQ(choose_splits(8192, 16, 396, kOverhead), 1);
    EXPECT_EQ(choose_splits(396, 16, 396, kOverhead), 1);
}

TEST(Splits, DoNotLeaveAWaveNearlyEmpty) {
    // 256 blocks in 396 places: 3 splits make 1.94 waves, where 4 would make 2.6.
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
}  // namespace lk::cuda
