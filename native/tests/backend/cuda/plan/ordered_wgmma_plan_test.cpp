// Plans of the batch-invariant GEMM with wgmma: host functions.
#include <gtest/gtest.h>

#include "backend/cuda/plan/ordered_wgmma_plan.h"
#include "support/ordered_units.h"

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;  // of an H200

OrderedPlan plan_of(int n_rows, int n_cols, int n) {
    const int rows = OrderedWgmmaPlan::rows(n);
    return OrderedWgmmaPlan::of((n_rows + rows - 1) / rows, n_cols, n, kProcessors);
}

TEST(OrderedWgmmaPlan, UnitsCoverTheTilesOnce) {
    for (const int n_processors : {1, 78, kProcessors}) {
        for (const int n : {1, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 300, 384, 512, 2048}) {
            for (const int row_blocks : {1, 8, 32, 86, 96, 172, 1002}) {
                SCOPED_TRACE(testing::Message()
                             << row_blocks << " blocks of rows, " << n << " tokens, " << n_processors << " processors");
                const OrderedPlan plan = OrderedWgmmaPlan::of(row_blocks, 4096, n, n_processors);
                EXPECT_EQ(plan.segments.n_chunks, 128);
                EXPECT_EQ(plan.rows, OrderedWgmmaPlan::rows(n));
                EXPECT_EQ(plan.n_tiles, row_blocks * ((n + plan.columns - 1) / plan.columns));
                EXPECT_EQ(OrderedWgmmaPlan::n_counts(plan), static_cast<size_t>(plan.n_split() * (plan.rows / 64)));
                test::expect_units_cover(plan);
                with_wgmma_tile(plan.columns, [&](auto tile) {
                    EXPECT_EQ(tile.kColumns, plan.columns);
                    EXPECT_EQ(tile.kRows, plan.rows);
                    EXPECT_EQ(plan.n_blocks,
                              tile.kBlocks > 1 ? plan.n_units() : std::min(plan.n_units(), n_processors));
                });
            }
        }
    }
}

TEST(OrderedWgmmaPlan, TilesFitTheTokens) {
    const auto columns = [](int n) { return plan_of(22016, 4096, n).columns; };
    EXPECT_EQ(columns(1), 8);
    EXPECT_EQ(columns(8), 8);
    EXPECT_EQ(columns(9), 16);
    EXPECT_EQ(columns(17), 32);
    EXPECT_EQ(columns(33), 64);
    EXPECT_EQ(columns(65), 128);
    EXPECT_EQ(columns(128), 128);
    EXPECT_EQ(columns(129), 256);
    EXPECT_EQ(columns(2048), 256);
}

// All tiles of a large matrix run at once when the time is that of reading it. Small matrices are split.
TEST(OrderedWgmmaPlan, ReadsKeepTheDeviceBusy) {
    EXPECT_EQ(plan_of(22016, 4096, 1).n_blocks, 344);
    EXPECT_EQ(plan_of(22016, 4096, 1).n_split(), 0);
    EXPECT_EQ(plan_of(4096, 4096, 1).n_blocks, 64 * 4);
    EXPECT_EQ(plan_of(25400, 264, 1).n_whole, 3 * kProcessors);
    EXPECT_EQ(plan_of(25400, 264, 1).n_blocks, 3 * kProcessors + 4);
    EXPECT_EQ(plan_of(22016, 4096, 64).n_blocks, 172);
    EXPECT_EQ(plan_of(4096, 11008, 64).n_blocks, 32 * 4);
}

// With one block per multiprocessor, each has the same number of whole tiles; those left over are split.
TEST(OrderedWgmmaPlan, BlocksHaveSeveralTiles) {
    const OrderedPlan plan = plan_of(22016, 4096, 2048);
    EXPECT_EQ(plan.n_tiles, 172 * 8);
    EXPECT_EQ(plan.n_whole, 10 * kProcessors);
    EXPECT_EQ(plan.parts, 2);
    EXPECT_EQ(plan.n_blocks, kProcessors);
}

}  // namespace
}  // namespace lk::cuda
