// Plans of the GEMM of F16 weights with few tokens and wgmma: host functions.
#include "backend/cuda/plan/few_plan.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/tile_units.h"

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;  // of an H200

TEST(FewPlan, UnitsCoverTheTilesOnce) {
    for (const int n_processors : {1, 78, kProcessors}) {
        for (const int n_cols : {64, 72, 352, 4096, 11008}) {
            for (const int row_blocks : {1, 2, 8, 32, 48, 96, 132, 172, 1002}) {
                SCOPED_TRACE(testing::Message()
                             << row_blocks << " blocks of rows, " << n_cols << " columns, " << n_processors);
                const FewPlan plan = FewPlan::of(row_blocks, n_cols, n_processors);
                ASSERT_EQ(plan.n_tiles, row_blocks);
                EXPECT_EQ(plan.n_slots(), static_cast<size_t>(2 * plan.shares.n_blocks));
                std::vector<int> chunks(row_blocks);
                test::expect_units_cover(plan,
                                         [&](const TileUnit& unit) { chunks.at(unit.tile) += plan.chunks_of(unit); });
                EXPECT_EQ(chunks, std::vector<int>(row_blocks, (n_cols + 31) / 32));
            }
        }
    }
}

TEST(FewPlan, BlocksHaveEquallyManySteps) {
    const FewPlan plan = FewPlan::of(172, 4096, kProcessors);
    EXPECT_EQ(plan.shares.n_blocks, kProcessors);
    EXPECT_EQ(plan.shares.n_each, 172 * 64 / kProcessors);
    EXPECT_EQ(FewPlan::of(1, 128, kProcessors).shares.n_blocks, 2) << "no more than there are steps";
}

}  // namespace
}  // namespace lk::cuda
