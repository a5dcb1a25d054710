// Divides the steps of tiles among thread blocks of the GEMMs with wgmma. Host code without CUDA; C++17, because
// kernels include it too.
#pragma once

#include <algorithm>
#include <cstddef>

#include "backend/cuda/plan/splits.h"

namespace lk::cuda {

// Steps [first, end) of a tile.
struct TileUnit {
    int tile;
    int first;
    int end;
};

// The steps of all tiles are divided evenly over thread blocks. A tile may have parts in several blocks; of a block,
// only the first and the last unit can be such parts.
struct TileUnits {
    int n_steps;  // of a tile
    int n_tiles;
    Shares shares;

    static constexpr TileUnits of(int n_tiles, int n_steps, int n_processors) {
        return {n_steps, n_tiles, Shares::of(n_tiles * n_steps, n_processors)};
    }

    // The unit of a block that starts at a step of all tiles; block_end: the block's last step + 1.
    constexpr TileUnit unit_at(int step, int block_end) const {
        const int tile = step / n_steps;
        const int first = step - tile * n_steps;
        return {tile, first, std::min(n_steps, first + block_end - step)};
    }
    constexpr bool whole(const TileUnit& unit) const { return unit.end - unit.first == n_steps; }

    // Blocks with a part of a tile: [first_block(tile), last_block(tile)].
    constexpr int first_block(int tile) const { return shares.block_of(tile * n_steps); }
    constexpr int last_block(int tile) const { return shares.block_of((tile + 1) * n_steps - 1); }
    constexpr int n_parts(int tile) const { return last_block(tile) - first_block(tile) + 1; }
    // Where a block stores its part of a tile.
    constexpr int slot_of(int block, int tile) const {
        return 2 * block + (shares.begin(block) / n_steps == tile ? 0 : 1);
    }
    constexpr size_t n_slots() const { return static_cast<size_t>(2 * shares.n_blocks); }
};

}  // namespace lk::cuda
