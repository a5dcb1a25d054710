// Arguments of multiply_ordered and multiply_ordered_wgmma, and places of a tile, also of multiply_few_wgmma.
#pragma once

#include "backend/cuda/device/padding.h"
#include "backend/cuda/plan/ordered_plan.h"

namespace lk::cuda {

namespace {

// Arguments of a launch.
struct OrderedWork {
    OrderedProducts products;
    const uint16_t* x;  // [n, n_cols]
    float4* sums;       // [split tile, slot, kM, kN, thread]; see OrderedPlan::slots
    int* counts;        // with wgmma; see multiply_ordered_wgmma
    OrderedPlan plan;
    int n_cols;
    int n;
};
static_assert(kUnpadded<OrderedProducts, FewProducts, int[FewProducts::kMost], bool, bool[7]>);
static_assert(kUnpadded<OrderedPlan, RowSegments, int[7]>);
static_assert(kUnpadded<OrderedWork, OrderedProducts, void*, void*, void*, OrderedPlan, int, int>);

// Rows and tokens of a tile.
template <class Tile>
struct TilePlace {
    // work: the arguments of a launch: products, plan and n.
    template <class Work>
    __device__ TilePlace(const Work& work, int tile) {
        const FewProducts& matrices = work.products.matrices;
        const int block = tile / work.plan.column_blocks;
        which = product_of(matrices, block);
        first_row = (block - matrices.first_block[which]) * Tile::kRows;
        first_column = tile % work.plan.column_blocks * Tile::kColumns;
        n_rows = matrices.n_rows[which] - first_row;
        n_columns = work.n - first_column;
        y = &work.products.y_of(which, first_column, first_row);
        y_rows = work.products.y_rows[which];
        add = matrices.add[which];
    }

    // Writes the lane's sums of tiles m and t to y.
    __device__ void write(int m, int t, const float (&sums)[4]) const {
        const int row = Tile::row_of(threadIdx.x, m, 0);
        const int column = Tile::column_of(threadIdx.x, t, 0);
        float* const out = y + static_cast<size_t>(column) * y_rows + row;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (row + i / 2 * 8 < n_rows && column + i % 2 < n_columns) {
                float& element = out[i % 2 * y_rows + i / 2 * 8];
                element = add ? element + sums[i] : sums[i];
            }
        }
    }

    int which;  // matrix
    int first_row;
    int first_column;
    int n_rows;  // from the first one to the end of the matrix; may be more than the tile's
    int n_columns;
    float* y;  // of the first row and token
    int y_rows;
    bool add;
};

// A lane's place in a slot of the partial sums.
template <class Tile>
__device__ float4* sums_at(const OrderedWork& a, int tile, int slot) {
    constexpr size_t kEach = size_t{Tile::kM} * Tile::kN * Tile::kThreads;
    return a.sums + (static_cast<size_t>(tile - a.plan.n_whole) * a.plan.slots() + slot) * kEach + threadIdx.x;
}

}  // namespace

}  // namespace lk::cuda
