// Plans of the GEMM of F16 weights with few tokens and wgmma: host functions.
#include "backend/cuda/plan/few_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;  // of an H200

// Units of all blocks cover each chunk of each tile once. Parts of a tile are in the blocks and slots that the block
// that adds them expects, in the order of their elements.
TEST(FewPlan, UnitsCoverTheTilesOnce) {
    for (const int n_processors : {1, 78, kProcessors}) {
        for (const int n_cols : {64, 72, 352, 4096, 11008}) {
            for (const int row_blocks : {1, 2, 8, 32, 48, 96, 132, 172, 1002}) {
                SCOPED_TRACE(testing::Message()
                             << row_blocks << " blocks of rows, " << n_cols << " columns, " << n_processors);
                const FewPlan plan = FewPlan::of(row_blocks, n_cols, n_processors);
                std::vector<int> next(row_blocks);  // step of each tile
                std::vector<int> chunks(row_blocks);
                std::vector<int> parts(row_blocks);
                std::set<int> slots;
                for (int block = 0; block < plan.shares.n_blocks; ++block) {
                    const int end = plan.shares.begin(block + 1);
                    for (int step = plan.shares.begin(block); step < end;) {
                        const TileUnit unit = plan.unit_at(step, end);
                        ASSERT_EQ(unit.first, next.at(unit.tile));
                        ASSERT_LT(unit.first, unit.end);
                        next[unit.tile] = unit.end;
                        chunks[unit.tile] += plan.chunks_of(unit);
                        step += unit.end - unit.first;
                        if (plan.whole(unit)) {
                            continue;
                        }
                        EXPECT_EQ(block, plan.first_block(unit.tile) + parts[unit.tile]++);
                        EXPECT_TRUE(slots.insert(plan.slot_of(block, unit.tile)).second) << "slots differ";
                        EXPECT_LT(plan.slot_of(block, unit.tile), 2 * plan.shares.n_blocks);
                    }
                }
                EXPECT_EQ(next, std::vector<int>(row_blocks, plan.n_steps));
                EXPECT_EQ(chunks, std::vector<int>(row_blocks, (n_cols + 31) / 32));
                for (int tile = 0; tile < row_blocks; ++tile) {
                    EXPECT_EQ(plan.n_parts(tile), parts[tile] > 0 ? parts[tile] : 1) << tile;
                }
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
