// Plans the GEMMs of F16 weights with few tokens and wgmma. Host code without CUDA; C++17, because kernels include it
// too.
#pragma once

#include <algorithm>
#include <cstddef>

#include "backend/cuda/plan/splits.h"
#include "backend/cuda/plan/wgmma_tile.h"

namespace lk::cuda {

// A thread block usually has its multiprocessor alone, but takes less than half of its shared memory: a block of the
// next kernel can start, and prefetch weights, while this one ends.
using FewTile = WgmmaTile<2, 8, 2, 6, 2>;

// Steps [first, end) of a tile.
struct FewUnit {
    int tile;
    int first;
    int end;
};

// Work distribution of multiply_few_wgmma: the steps of all tiles are divided evenly over thread blocks. A tile may
// have parts in several blocks; of a block, only the first and the last unit can be such parts.
struct FewPlan {
    static constexpr int kMostTokens = FewTile::kColumns;
    static constexpr int kRows = FewTile::kRows;  // of weights per tile
    static constexpr int kStepChunks = FewTile::kStepChunks;
    static constexpr int column_blocks = 1;

    int n_chunks;  // of 32 elements, of a row
    int n_steps;   // of a tile
    int n_tiles;
    Shares shares;

    // row_blocks: blocks of kRows rows of all matrices; see count_blocks.
    static constexpr FewPlan of(int row_blocks, int n_cols, int n_processors) {
        const int n_chunks = (n_cols + 31) / 32;
        const int n_steps = (n_chunks + kStepChunks - 1) / kStepChunks;
        return {n_chunks, n_steps, row_blocks, Shares::of(row_blocks * n_steps, n_processors)};
    }

    // The unit of a block that starts at a step of all tiles; block_end: the block's last step + 1.
    constexpr FewUnit unit_at(int step, int block_end) const {
        const int tile = step / n_steps;
        const int first = step - tile * n_steps;
        return {tile, first, std::min(n_steps, first + block_end - step)};
    }
    constexpr bool whole(const FewUnit& unit) const { return unit.end - unit.first == n_steps; }
    constexpr int chunks_of(const FewUnit& unit) const {
        return std::min(n_chunks, unit.end * kStepChunks) - unit.first * kStepChunks;
    }

    // Blocks with a part of a tile: [first_block(tile), last_block(tile)].
    constexpr int first_block(int tile) const { return shares.block_of(tile * n_steps); }
    constexpr int last_block(int tile) const { return shares.block_of((tile + 1) * n_steps - 1); }
    constexpr int n_parts(int tile) const { return last_block(tile) - first_block(tile) + 1; }
    // Where a block stores its part of a tile.
    constexpr int slot_of(int block, int tile) const {
        return 2 * block + (shares.begin(block) / n_steps == tile ? 0 : 1);
    }

    // Floats of the slots, and counts of finished parts.
    constexpr size_t n_sums() const { return static_cast<size_t>(2 * shares.n_blocks) * size_t{kRows * kMostTokens}; }
    constexpr size_t n_counts() const { return static_cast<size_t>(n_tiles) * size_t{FewTile::kGroups}; }
};

}  // namespace lk::cuda
