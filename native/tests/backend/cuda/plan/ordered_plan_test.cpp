// Plans and tile layout of the batch-invariant GEMM: host functions. Operands of tensor cores are loaded as the GPU
// does.
#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "backend/cuda/plan/ordered_plan.h"
#include "support/ordered_units.h"

namespace lk::cuda {
namespace {

constexpr Processors kH200{132, 232448};
constexpr Processors kA100{108, 163 << 10};
constexpr Processors kSmall{84, 99 << 10};  // the smallest shared memory of compute capability 8.x
constexpr int kTokens[] = {9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 300, 384, 512, 2048};

template <class Tile>
class OrderedTiles : public testing::Test {};
using Tiles = testing::Types<OrderedTile32, OrderedTile64, OrderedTile128, OrderedTile256>;
TYPED_TEST_SUITE(OrderedTiles, Tiles);

// The segments cover the chunks of a row in order.
TEST(OrderedPlan, SegmentsCoverARow) {
    for (const int n_cols : {8, 32, 72, 256, 264, 4096, 11008, 16384}) {
        const RowSegments segments = RowSegments::of(n_cols);
        EXPECT_EQ(segments.begin_of(0), 0);
        EXPECT_EQ(segments.end_of(RowSegments::kCount - 1), (n_cols + 31) / 32);
        for (int s = 0; s < RowSegments::kCount; ++s) {
            EXPECT_LE(segments.begin_of(s), segments.end_of(s));
        }
    }
}

// The units cover the tiles, and the segments do not depend on the number of tokens.
TEST(OrderedPlan, UnitsCoverTheTilesOnce) {
    for (const Processors& processors : {kH200, kA100, kSmall, Processors{1, 99 << 10}}) {
        for (const int n : kTokens) {
            for (const int row_blocks : {1, 8, 32, 86, 96, 172, 1002}) {
                SCOPED_TRACE(testing::Message() << row_blocks << " blocks of rows, " << n << " tokens");
                const OrderedPlan plan = OrderedPlan::of(row_blocks, 4096, n, processors);
                EXPECT_EQ(plan.segments.n_chunks, 128);
                EXPECT_EQ(plan.n_tiles, row_blocks * ((n + plan.columns - 1) / plan.columns));
                EXPECT_LE(plan.n_split() * plan.parts, plan.n_split() > 0 ? processors.count : 0);
                EXPECT_EQ(plan.n_blocks, plan.n_units());
                test::expect_units_cover(plan);
            }
        }
    }
}

// Tiles left over by the last wave are split, as far as the multiprocessors suffice.
TEST(OrderedPlan, LeftTilesAreSplit) {
    const auto of = [](int row_blocks, int n) { return OrderedPlan::of(row_blocks, 4096, n, kH200); };
    EXPECT_EQ(of(32, 64).n_blocks, 128) << "four parts";
    EXPECT_EQ(of(32, 64).slots(), 4);
    EXPECT_EQ(of(64, 64).n_blocks, 128) << "two parts";
    EXPECT_EQ(of(64, 64).slots(), 3) << "the first part adds its segments";
    EXPECT_EQ(of(96, 64).n_blocks, 96);
    EXPECT_EQ(of(96, 64).n_sums(), 0u);
    EXPECT_EQ(of(132, 64).n_blocks, 132);
    EXPECT_EQ(of(172, 64).n_whole, 132);
    EXPECT_EQ(of(172, 64).n_blocks, 132 + 2 * 40);
    EXPECT_EQ(of(172, 256).n_blocks, 132 + 2 * 40);
}

// Tokens per tile. Tiles of 256 tokens need the shared memory of compute capability 9.0, and enough tokens.
TEST(OrderedPlan, TilesFitTheTokens) {
    const auto columns = [](int n, const Processors& processors) {
        return OrderedPlan::of(96, 4096, n, processors).columns;
    };
    EXPECT_EQ(columns(9, kH200), 32);
    EXPECT_EQ(columns(33, kH200), 64);
    EXPECT_EQ(columns(65, kH200), 128);
    EXPECT_EQ(columns(256, kH200), 256);
    EXPECT_EQ(columns(2048, kH200), 256);
    for (const Processors& processors : {kA100, kSmall}) {
        EXPECT_EQ(columns(2048, processors), 128);
    }
}

TYPED_TEST(OrderedTiles, FitSharedMemory) {
    using Tile = TypeParam;
    EXPECT_LE(Tile::kSharedBytes, Tile::kColumns == 256 ? kH200.shared_bytes : kSmall.shared_bytes);
    if (Tile::kColumns <= 64) {
        constexpr int kOfProcessor = 228 << 10;
        constexpr int kReserved = 1 << 10;  // per thread block
        EXPECT_LE(2 * (Tile::kSharedBytes + kReserved), kOfProcessor) << "two blocks per multiprocessor";
    }
}

// The threads copy each piece of a stage once, and lanes load the 16 elements of their rows and tokens from there: in
// the order of load_matrices and `multiply`, and eight rows at a time from different banks.
TYPED_TEST(OrderedTiles, LanesLoadTheirOperands) {
    using Tile = TypeParam;
    std::vector<std::pair<int, int>> stage(Tile::kStageBytes / 16, {-1, -1});  // row and piece by place
    for (int thread = 0; thread < Tile::kThreads; ++thread) {
        const int piece = Tile::copied_piece(thread);
        for (int row = Tile::copied_row(thread); row < Tile::kRows + Tile::kColumns; row += Tile::kTogether) {
            auto& place = stage.at(Tile::offset(row, piece) / 16);
            EXPECT_EQ(place.first, -1);
            place = {row, piece};
            // The kernel adds the offset of the thread's first row.
            const int first = Tile::offset(Tile::copied_row(thread), piece);
            EXPECT_EQ(Tile::offset(row, piece), first + (row - Tile::copied_row(thread)) * Tile::kRowBytes);
        }
    }
    for (int warp = 0; warp < Tile::kWarps; ++warp) {
        for (int k = 0; k < 2 * Tile::kStepChunks; ++k) {
            for (int matrix = 0; matrix < 4; ++matrix) {
                std::set<int> row_banks;
                std::set<int> column_banks;
                for (int r = 0; r < 8; ++r) {
                    const int lane = 8 * matrix + r;
                    const int of_rows = Tile::lane_rows(32 * warp + lane) ^ 32 * k;
                    const int of_columns = Tile::lane_columns(32 * warp + lane) ^ 32 * k;
                    row_banks.insert(of_rows % 128);
                    column_banks.insert(of_columns % 128);
                    for (int m = 0; m < Tile::kM; ++m) {
                        const int row = Tile::first_row(warp) + 16 * m + matrix % 2 * 8 + r;
                        EXPECT_EQ(stage.at(of_rows / 16 + m * Tile::kRowBytes), (std::pair{row, 2 * k + matrix / 2}));
                    }
                    for (int t = 0; t < Tile::kN / 2; ++t) {
                        const int column = Tile::first_column(warp) + 16 * t + matrix / 2 * 8 + r;
                        EXPECT_EQ(stage.at(of_columns / 16 + t * Tile::kRowBytes),
                                  (std::pair{Tile::kRows + column, 2 * k + matrix % 2}));
                    }
                }
                EXPECT_EQ(row_banks.size(), 8u);
                EXPECT_EQ(column_banks.size(), 8u);
            }
        }
    }
}

// Lanes hold each output element once.
TYPED_TEST(OrderedTiles, LanesCoverTheTile) {
    using Tile = TypeParam;
    std::vector<int> counts(Tile::kRows * Tile::kColumns);
    for (int thread = 0; thread < Tile::kThreads; ++thread) {
        for (int m = 0; m < Tile::kM; ++m) {
            for (int t = 0; t < Tile::kN; ++t) {
                for (int i = 0; i < 4; ++i) {
                    ++counts.at(Tile::column_of(thread, t, i) * Tile::kRows + Tile::row_of(thread, m, i));
                }
            }
        }
    }
    EXPECT_EQ(counts, std::vector<int>(counts.size(), 1));
}

}  // namespace
}  // namespace lk::cuda
