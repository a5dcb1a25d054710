// Tiles of the GEMMs of halves with wgmma: host functions. Boxes are copied and operands are read as the GPU does.
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "backend/cuda/plan/few_plan.h"
#include "backend/cuda/plan/wgmma_tile.h"

namespace lk::cuda {
namespace {

constexpr int kSharedBytes = 232448;  // per thread block
constexpr int kReserved = 1 << 10;    // per thread block
constexpr int kOfProcessor = 228 << 10;

template <class Tile>
class WgmmaTiles : public testing::Test {};
using Tiles = testing::Types<WgmmaTile8, WgmmaTile16, WgmmaTile32, WgmmaTile64, WgmmaTile128, WgmmaTile256, FewTile>;
TYPED_TEST_SUITE(WgmmaTiles, Tiles);

TYPED_TEST(WgmmaTiles, FitTheMultiprocessor) {
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
TYPED_TEST(WgmmaTiles, OperandsAreWhereBoxesPutThem) {
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
TYPED_TEST(WgmmaTiles, ThreadsCoverTheTile) {
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

}  // namespace
}  // namespace lk::cuda
