// Plans of the GEMM of quantized weights with wgmma: host functions.
#include "backend/cuda/plan/quantized_wgmma_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "support/kv_helpers.h"
#include "support/tile_units.h"

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;  // of an H200

TEST(QuantizedPlan, UnitsCoverTheTilesOnce) {
    for (const int n_processors : {1, 78, kProcessors}) {
        for (const int n_cols : {256, 512, 4096, 11008}) {
            for (const int row_blocks : {1, 2, 16, 32, 86, 125, 132, 1002}) {
                SCOPED_TRACE(testing::Message()
                             << row_blocks << " blocks of rows, " << n_cols << " columns, " << n_processors);
                const QuantizedPlan plan = QuantizedPlan::of(row_blocks, n_cols, n_processors);
                ASSERT_EQ(plan.n_tiles, row_blocks);
                EXPECT_EQ(plan.n_steps, n_cols / 256);
                EXPECT_LE(plan.n_slots() * 128 * 64, plan.n_sums(64));
                test::expect_units_cover(plan, [](const TileUnit&) {});
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
