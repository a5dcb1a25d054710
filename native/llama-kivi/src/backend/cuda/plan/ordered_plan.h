// Plans the batch-invariant GEMMs of halves. Host code without CUDA; C++17, because kernels include it too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/device/processors.h"
#include "backend/cuda/plan/matmul_plan.h"
#include "backend/cuda/plan/ordered_tile.h"

namespace lk::cuda {

// A row's elements are summed in segments, one after the other, whatever the number of tokens. A segment has whole
// chunks of 32 elements. The last segments may be empty.
struct RowSegments {
    static constexpr int kCount = 4;

    int n_chunks;  // of a row

    static constexpr RowSegments of(int n_cols) { return {(n_cols + 31) / 32}; }
    // First chunk of a segment, and the chunk after it.
    constexpr int begin_of(int segment) const {
        return std::min(n_chunks, segment * ((n_chunks + kCount - 1) / kCount));
    }
    constexpr int end_of(int segment) const { return begin_of(segment + 1); }
};

// Matrices of halves, multiplied by the same input in one launch of multiply_ordered or multiply_few_wgmma.
struct OrderedProducts {
    FewProducts matrices;
    // Rows of the whole y. A matrix may be a part of its weights; its y then points to the part's first row.
    int y_rows[FewProducts::kMost];
    bool constant;        // no kernel writes the weights
    bool unused[7] = {};  // no padding; see RowsWatch

    // Element of a row of the matrix, for a token.
    constexpr float& y_of(int which, int token, int row) const {
        return matrices
            .y[which][static_cast<size_t>(token) * static_cast<size_t>(y_rows[which]) + static_cast<size_t>(row)];
    }
};

// A unit of work: consecutive segments of a tile.
struct OrderedUnit {
    int tile;
    int first_segment;
    int n_segments;

    constexpr int end_segment() const { return first_segment + n_segments; }
    constexpr bool whole() const { return n_segments == RowSegments::kCount; }
};

// Work distribution of multiply_ordered; see matmul/ordered.cu and ordered_wgmma.cu. It does not affect the result.
// Tiles fill the multiprocessors once or several times; the segments of the tiles left over are distributed over thread
// blocks.
struct OrderedPlan {
    static constexpr int kFewColumns = 8;
    static constexpr int kRows = 128;  // of weights per tile, without wgmma

    RowSegments segments;
    int rows;           // of weights per tile
    int columns;        // tokens per tile
    int column_blocks;  // tiles per block of rows
    int n_tiles;
    int n_whole;   // the first tiles, one unit each
    int parts;     // units of each other tile
    int n_blocks;  // thread blocks; each takes every n_blocks-th unit

    // row_blocks: blocks of kRows rows of all matrices; see count_blocks.
    static constexpr OrderedPlan of(int row_blocks, int n_cols, int n, const Processors& processors) {
        const auto plan = [&](int tile_columns) {
            return of_tiles(kRows, tile_columns, row_blocks, n_cols, n, processors.count);
        };
        if (n <= OrderedTile64::kColumns) {
            return plan(n <= OrderedTile32::kColumns ? OrderedTile32::kColumns : OrderedTile64::kColumns);
        }
        const OrderedPlan narrow = plan(OrderedTile128::kColumns);
        if (n <= OrderedTile128::kColumns || processors.shared_bytes < OrderedTile256::kSharedBytes) {
            return narrow;
        }
        // A tile of 256 tokens takes less than two of 128, because it reads less per multiplication.
        const OrderedPlan wide = plan(OrderedTile256::kColumns);
        return wide.time(processors.count, 40, 4) <= narrow.time(processors.count, 28, 4) ? wide : narrow;
    }

    // n_slots: thread blocks that run at once.
    static constexpr OrderedPlan of_tiles(int rows, int columns, int row_blocks, int n_cols, int n, int n_slots) {
        const int column_blocks = (n + columns - 1) / columns;
        const int n_tiles = row_blocks * column_blocks;
        OrderedPlan plan{RowSegments::of(n_cols), rows, columns, column_blocks, n_tiles, n_tiles, 1, 0};
        const int left = n_tiles % n_slots;
        while (left > 0 && plan.parts < RowSegments::kCount && 2 * left * plan.parts <= n_slots) {
            plan.parts *= 2;
        }
        plan.n_whole -= plan.parts > 1 ? left : 0;
        plan.n_blocks = plan.n_units();
        return plan;
    }

    // Modelled time: of_tile for a tile, and of_sums for the sums of split tiles.
    constexpr int time(int n_slots, int of_tile, int of_sums) const {
        const int waves = (n_whole + n_slots - 1) / n_slots;
        return waves * of_tile + (n_split() > 0 ? of_tile / parts + of_sums : 0);
    }

    constexpr int n_units() const { return n_whole + n_split() * parts; }
    constexpr int n_split() const { return n_tiles - n_whole; }
    constexpr OrderedUnit unit_of(int index) const {
        if (index < n_whole) {
            return {index, 0, RowSegments::kCount};
        }
        const int rest = index - n_whole;
        return {n_whole + rest / parts, rest % parts * segments_each(), segments_each()};
    }

    // Segments of a part.
    constexpr int segments_each() const { return RowSegments::kCount / parts; }
    // Partial sums per output element of a split tile: one for the first part, which adds its segments; one per segment
    // for the others.
    constexpr int slots() const { return RowSegments::kCount - segments_each() + 1; }
    constexpr int slot_of(int segment) const { return std::max(0, segment - segments_each() + 1); }
    constexpr size_t n_sums() const {
        return static_cast<size_t>(n_split()) * static_cast<size_t>(slots()) * static_cast<size_t>(rows * columns);
    }
};

static_assert(OrderedTile32::kRows == OrderedPlan::kRows && OrderedTile64::kRows == OrderedPlan::kRows &&
              OrderedTile128::kRows == OrderedPlan::kRows && OrderedTile256::kRows == OrderedPlan::kRows);

}  // namespace lk::cuda
