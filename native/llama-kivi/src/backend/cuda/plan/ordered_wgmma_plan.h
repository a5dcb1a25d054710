// Plans the batch-invariant GEMMs of halves with wgmma. Host code without CUDA; C++17, because kernels include it too.
#pragma once

#include "backend/cuda/plan/ordered_plan.h"
#include "backend/cuda/plan/wgmma_tile.h"

namespace lk::cuda {

// Work distribution of multiply_ordered_wgmma.
struct OrderedWgmmaPlan {
    // Rows of weights per tile for n tokens.
    static constexpr int rows(int n) { return n <= WgmmaTile16::kColumns ? WgmmaTile16::kRows : WgmmaTile32::kRows; }

    // One per 64 rows of a split tile.
    static constexpr size_t n_counts(const OrderedPlan& plan) {
        return static_cast<size_t>(plan.n_split()) * static_cast<size_t>(plan.rows / 64);
    }

    // row_blocks: blocks of rows(n) rows of all matrices; see count_blocks.
    static OrderedPlan of(int row_blocks, int n_cols, int n, int n_processors) {
        const auto plan = [&](auto tile) {
            using Tile = decltype(tile);
            OrderedPlan p =
                OrderedPlan::of_tiles(Tile::kRows, Tile::kColumns, row_blocks, n_cols, n, n_processors * Tile::kBlocks);
            // Alone on its multiprocessor, a block fetches the next tile while it writes the last one. Otherwise
            // the blocks beside it do, and the GPU balances them.
            if (Tile::kBlocks == 1) {
                p.n_blocks = std::min(p.n_blocks, n_processors);
            }
            return p;
        };
        if (n <= WgmmaTile128::kColumns) {
            int columns = WgmmaTile8::kColumns;
            while (columns < n) {
                columns *= 2;
            }
            return with_wgmma_tile(columns, plan);
        }
        // Times in units of 256 cycles, for rows of 4,096 elements. Shared memory bounds the tile of 128 tokens, which
        // reads more per multiplication.
        const OrderedPlan wide = plan(WgmmaTile256{});
        const OrderedPlan narrow = plan(WgmmaTile128{});
        return wide.time(n_processors, 272, 28) <= narrow.time(n_processors, 168, 14) ? wide : narrow;
    }
};

static_assert(WgmmaTile8::kRows == WgmmaTile16::kRows && WgmmaTile32::kRows == WgmmaTile64::kRows &&
              WgmmaTile64::kRows == WgmmaTile128::kRows && WgmmaTile128::kRows == WgmmaTile256::kRows);

}  // namespace lk::cuda
