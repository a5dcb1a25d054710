// Plans of the GEMM of quantized weights with wgmma: host functions.
#include "backend/cuda/plan/quantized_wgmma_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "support/kv_helpers.h"

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;  // of an H200

// Units of all blocks cover each step of each tile once. Parts of a tile are in the blocks and slots that the block
// that adds them expects, in the order of their elements.
TEST(QuantizedPlan, UnitsCoverTheTilesOnce) {
    for (const int n_processors : {1, 78, kProcessors}) {
        for (const int n_cols : {256, 512, 4096, 11008}) {
            for (const int row_blocks : {1, 2, 16, 32, 86, 125, 132, 1002}) {
                SCOPED_TRACE(testing::Message()
                             << row_blocks << " blocks of rows, " << n_cols << " columns, " << n_processors);
                const QuantizedPlan plan = QuantizedPlan::of(row_blocks, n_cols, n_processors);
                std::vector<int> next(row_blocks);  // step of each tile
                std::vector<int> parts(row_blocks);
                std::set<int> slots;
                for (int block = 0; block < plan.shares.n_blocks; ++block) {
                    const int end = plan.shares.begin(block + 1);
                    for (int step = plan.shares.begin(block); step < end;) {
                        const TileUnit unit = plan.unit_at(step, end);
                        ASSERT_EQ(unit.first, next.at(unit.tile));
                        ASSERT_LT(unit.first, unit.end);
                        next[unit.tile] = unit.end;
                        step += unit.end - unit.first;
                        if (plan.whole(unit)) {
                            continue;
                        }
                        EXPECT_EQ(block, plan.first_block(unit.tile) + parts[unit.tile]++);
                        const int slot = plan.slot_of(block, unit.tile);
                        EXPECT_TRUE(slots.insert(slot).second) << "slots differ";
                        EXPECT_LE((slot + size_t{1}) * 128 * 64, plan.n_sums(64));
                    }
                }
                EXPECT_EQ(next, std::vector<int>(row_blocks, n_cols / 256));
                for (int tile = 0; tile < row_blocks; ++tile) {
                    EXPECT_EQ(plan.n_parts(tile), parts[tile] > 0 ? parts[tile] : 1) << tile;
                }
            }
        }
    }
}

// Every thread has rows and tokens of its own, and together they have all of the tile.
TEST(QuantizedPlan, ThreadsCoverATile) {
    using Tile = QuantizedTile<WeightType::Q4_K, 2>;
    std::set<std::pair<int, int>> places;
    for (int thread = 0; thread < Tile::kThreads; ++thread) {
        for (int t = 0; t < Tile::kN; ++t) {
            for (int i = 0; i < 4; ++i) {
                const int row = Tile::row_of(thread, 0, i);
                const int column = Tile::column_of(thread, t, i);
                EXPECT_LT(row, Tile::kRows);
                EXPECT_LT(column, Tile::kColumns);
                EXPECT_TRUE(places.insert({row, column}).second);
            }
        }
    }
    EXPECT_EQ(places.size(), static_cast<size_t>(Tile::kRows * Tile::kColumns));
}

// A tile of every type and number of tokens has at least two stages, and three with up to 64 tokens.
template <WeightType kType>
void expect_stages() {
    static_assert(QuantizedTile<kType, 1>::kStages >= 4);
    static_assert(QuantizedTile<kType, 8>::kStages >= 3);
    using Widest = QuantizedTile<kType, quantized_wgmma_columns(kType) / 8>;
    static_assert(Widest::kStages >= 2);
    EXPECT_LE(Widest::kSharedBytes, TilePlan::kMostSharedBytes);
    EXPECT_LE((QuantizedTile<kType, 1>::kSharedBytes), TilePlan::kMostSharedBytes);
}

TEST(QuantizedPlan, StagesFitInSharedMemory) {
    expect_stages<WeightType::Q4_K>();
    expect_stages<WeightType::Q5_K>();
    expect_stages<WeightType::Q6_K>();
    expect_stages<WeightType::Q8_0>();
}

TEST(QuantizedPlan, OtherRegistersFail) {
    test::expect_error(LK_INTERNAL_ERROR, {"multiply_quantized_wgmma", "120 registers", "128", "CUDA_WGMMA=0"},
                       [] { fail_registers("multiply_quantized_wgmma", 120, 128); });
}

}  // namespace
}  // namespace lk::cuda
