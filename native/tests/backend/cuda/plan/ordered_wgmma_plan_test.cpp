// Plans and tile layout of the batch-invariant GEMM with wgmma: host functions. Boxes are copied and operands are read
// as the GPU does.
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "backend/cuda/plan/ordered_wgmma_plan.h"
#include "support/ordered_units.h"

namespace lk::cuda {
namespace {

constexpr int kProcessors = 132;      // of an H200
constexpr int kSharedBytes = 232448;  // per thread block
constexpr int kReserved = 1 << 10;    // per thread block
constexpr int kOfProcessor = 228 << 10;

template <class Tile>
class OrderedWgmmaTiles : public testing::Test {};
using Tiles = testing::Types<WgmmaTile8, WgmmaTile16, WgmmaTile32, WgmmaTile64, WgmmaTile128, WgmmaTile256>;
TYPED_TEST_SUITE(OrderedWgmmaTiles, Tiles);

TYPED_TEST(OrderedWgmmaTiles, FitTheMultiprocessor) {
    using Tile = TypeParam;
    EXPECT_LE(Tile::kSharedBytes, kSharedBytes);
    EXPECT_LE(Tile::kBlocks * (Tile::kSharedBytes + kReserved), kOfProcessor);
    EXPECT_GE(Tile::kBlocks * (Tile::kStages - 1) * Tile::kBoxes * Tile::kRows * Tile::kRowBytes, 29 << 10)
        << "bytes of weights in flight that hide the latency of memory";
    EXPECT_EQ(Tile::kBarriers % 8, 0);
}

// Swaps the 16-byte pieces of an address in shared memory, as copies and multiplications do.
int swizzle(int address) {
    return address ^ (address / 128 % 8 * 16);
}

// Boxes fill a stage, and a multiplication finds its 16 elements of 64 rows or of all tokens: groups of eight rows
// are 1,024 bytes apart; see PanelOperand.
TYPED_TEST(OrderedWgmmaTiles, OperandsAreWhereBoxesPutThem) {
    using Tile = TypeParam;
    using Element = std::tuple<bool, int, int>;  // of a token, row or token, element of the step
    const Element none{false, -1, -1};
    std::vector<Element> stage(Tile::kStageBytes / 2, none);
    const auto copy = [&](bool of_tokens, int at, int n_rows, int box) {
        EXPECT_EQ(at % 1024, 0);
        for (int row = 0; row < n_rows; ++row) {
            for (int i = 0; i < 64; ++i) {
                Element& to = stage.at(swizzle(at + 128 * row + 2 * i) / 2);
                EXPECT_EQ(to, none);
                to = {of_tokens, row, 64 * box + i};
            }
        }
    };
    for (int box = 0; box < Tile::kBoxes; ++box) {
        copy(false, Tile::rows_at(box), Tile::kRows, box);
        copy(true, Tile::columns_at(box), Tile::kColumns, box);
    }
    const auto expect_operand = [&](bool of_tokens, int start, int first_row, int n_rows, int k) {
        for (int row = 0; row < n_rows; ++row) {
            for (int i = 0; i < 16; ++i) {
                const int address = start + row / 8 * 1024 + row % 8 * 128 + 2 * i;
                EXPECT_EQ(stage.at(swizzle(address) / 2), Element(of_tokens, first_row + row, 16 * k + i));
            }
        }
    };
    for (int k = 0; k < 2 * Tile::kStepChunks; ++k) {
        for (int group = 0; group < Tile::kGroups; ++group) {
            const int rows = Tile::rows_at(k / 4) + Tile::group_at(group);
            EXPECT_EQ(rows % 1024, 0);
            expect_operand(false, rows + k % 4 * 32, 64 * group, 64, k);
        }
        expect_operand(true, Tile::columns_at(k / 4) + k % 4 * 32, 0, Tile::kColumns, k);
    }
}

// Threads hold each output element once, in the order of wgmma's sums.
TYPED_TEST(OrderedWgmmaTiles, ThreadsCoverTheTile) {
    using Tile = TypeParam;
    std::vector<int> counts(Tile::kRows * Tile::kColumns);
    for (int thread = 0; thread < Tile::kThreads; ++thread) {
        for (int i = 0; i < Tile::kSums; ++i) {
            const int row = Tile::row_of(thread, 0, i % 4);
            EXPECT_EQ(row / 64, thread / 128) << "the rows of the warpgroup";
            ++counts.at(Tile::column_of(thread, i / 4, i % 4) * Tile::kRows + row);
        }
    }
    EXPECT_EQ(counts, std::vector<int>(counts.size(), 1));
}

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
