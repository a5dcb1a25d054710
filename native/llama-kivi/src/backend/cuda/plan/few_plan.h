// Plans the GEMMs of F16 weights with few tokens and wgmma. Host code without CUDA; C++17, because kernels include it
// too.
#pragma once

#include <algorithm>
#include <cstddef>

#include "backend/cuda/plan/tile_units.h"
#include "backend/cuda/plan/wgmma_tile.h"

namespace lk::cuda {

// A thread block usually has its multiprocessor alone, but takes less than half of its shared memory: a block of the
// next kernel can start, and prefetch weights, while this one ends.
using FewTile = WgmmaTile<2, 8, 2, 6, 2>;

// Work distribution of multiply_few_wgmma.
struct FewPlan : TileUnits {
    static constexpr int kMostTokens = FewTile::kColumns;
    static constexpr int kRows = FewTile::kRows;  // of weights per tile
    static constexpr int kStepChunks = FewTile::kStepChunks;
    static constexpr int column_blocks = 1;

    int n_chunks;  // of 32 elements, of a row

    // row_blocks: blocks of kRows rows of all matrices; see count_blocks.
    static constexpr FewPlan of(int row_blocks, int n_cols, int n_processors) {
        const int n_chunks = (n_cols + 31) / 32;
        return {TileUnits::of(row_blocks, (n_chunks + kStepChunks - 1) / kStepChunks, n_processors), n_chunks};
    }

    constexpr int chunks_of(const TileUnit& unit) const {
        return std::min(n_chunks, unit.end * kStepChunks) - unit.first * kStepChunks;
    }

    // Floats of the slots, and counts of finished parts.
    constexpr size_t n_sums() const { return n_slots() * size_t{kRows * kMostTokens}; }
    constexpr size_t n_counts() const { return static_cast<size_t>(n_tiles) * size_t{FewTile::kGroups}; }
};

}  // namespace lk::cuda
