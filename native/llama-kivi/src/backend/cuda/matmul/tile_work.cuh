// Constants, arguments and positions of the tiled GEMM.
#pragma once

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"

namespace lk::cuda {

namespace {

constexpr int kSharers = 4;  // warps that split the elements of a row
constexpr int kStepElements = TilePlan::kStepElements;

// Warps of a thread block with kTiles tiles of 8 tokens. With many tokens a warp has as many rows as its registers can
// accumulate, because each warp reads all tokens from shared memory. With fewer tokens decoding is the bottleneck, and
// more warps hide its latency.
template <int kTiles>
struct TileWarps {
    static constexpr int kWarpRows = kTiles >= 4 ? 64 : 32;
    static constexpr int kRowWarps = TilePlan::kRows / kWarpRows;
    static constexpr int kThreads = kRowWarps * kSharers * 32;
};

// See TileStep.
template <WeightType kType>
struct Step {
    static constexpr TileStep kStep = TileStep::of(kType);
    static constexpr int kBytes = kStep.bytes;
    static constexpr int kAlign = kStep.align;
    static constexpr int kPieces = kStep.pieces;
    static constexpr int kPitch = kStep.pitch;
    static constexpr int kWeightBytes = kStep.weight_bytes;
    static constexpr int kColumnBytes = TileStep::kColumnBytes;
};

// Waits for all groups of copies but the last `groups`, at most kMost.
template <int kMost>
__device__ __forceinline__ void wait_for_all_but(int groups) {
    if constexpr (kMost > 0) {
        if (groups < kMost) {
            return wait_for_all_but<kMost - 1>(groups);
        }
    }
    copy_wait<kMost>();
}

// Arguments of a launch.
struct TileWork {
    FewProducts products;
    size_t row_bytes;
    const uint16_t* x;  // [n, n_cols]
    float* sums;        // see multiply_tiles
    int* counts;        //
    TilePlan plan;
    int n_cols;
    int n;
    int unused = 0;  // no padding; see RowsWatch
};
static_assert(kUnpadded<TileWork, FewProducts, size_t, void*, void*, void*, TilePlan, int, int, int>);

// Position of a unit (a step of a tile).
struct Place {
    __device__ Place(const TilePlan& plan, int unit) : tile(unit / plan.n_steps), step(unit - tile * plan.n_steps) {}

    __device__ void advance(const TilePlan& plan) {
        const bool wraps = ++step == plan.n_steps;
        step = wraps ? 0 : step;
        tile += wraps ? 1 : 0;
    }

    int tile;
    int step;
};

// The matrix of a tile. Found when it is needed: as members of Place, these would occupy registers throughout a step.
struct TileRows {
    __device__ TileRows(const FewProducts& products, int tile)
        : which(product_of(products, tile)), first((tile - products.first_block[which]) * TilePlan::kRows) {}

    int which;
    int first;  // first row of the tile
};

}  // namespace

}  // namespace lk::cuda
