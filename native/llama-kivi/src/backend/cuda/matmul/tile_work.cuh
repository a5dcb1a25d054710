// Constants, arguments, positions and vectors of sums of the tiled GEMM.
#pragma once

#include <type_traits>

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kStepElements = TilePlan::kStepElements;

// Warps of a thread block with kTiles tiles of 8 tokens: kRowWarps have different rows, kSharers split the elements of
// each row. With many tokens a warp has as many rows as its registers can accumulate, because each warp reads all
// tokens from shared memory. With fewer tokens decoding is the bottleneck, and more warps hide its latency.
template <int kTiles>
struct TileWarps {
    static constexpr int kSharers = 4;
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

// Floats that a lane accesses at once.
template <int kCount>
using Floats = std::conditional_t<kCount % 4 == 0, float4, float2>;

template <class Vector>
__device__ __forceinline__ Vector vector_of(const float* v) {
    if constexpr (sizeof(Vector) == sizeof(float4)) {
        return make_float4(v[0], v[1], v[2], v[3]);
    } else {
        return make_float2(v[0], v[1]);
    }
}

// to[i] = from[i] + v[i]
__device__ __forceinline__ void add_vector(float* to, const float* from, const float2& v) {
    to[0] = from[0] + v.x;
    to[1] = from[1] + v.y;
}
__device__ __forceinline__ void add_vector(float* to, const float* from, const float4& v) {
    add_vector(to, from, make_float2(v.x, v.y));
    add_vector(to + 2, from + 2, make_float2(v.z, v.w));
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

inline TileWork tile_work(FewProducts products, size_t row_bytes, const uint16_t* x, int n, int n_cols,
                          const TilePlan& plan, float* sums, int* counts) {
    count_blocks(products, TilePlan::kRows);
    return {products, row_bytes, x, sums, counts, plan, n_cols, n};
}

// Calls launch(type, tiles of 8 tokens), both compile-time constants, for quantized weights and n tokens.
template <class Launch>
void dispatch_tiles(WeightType type, int n, Launch&& launch) {
    dispatch("matmul in tiles", type, [&](auto t) {
        if constexpr (is_float(decltype(t)::value)) {
            fail_weights("matmul in tiles", type);
        } else {
            switch (column_tiles(n)) {
            case 1:
                return launch(t, std::integral_constant<int, 1>{});
            case 2:
                return launch(t, std::integral_constant<int, 2>{});
            case 4:
                return launch(t, std::integral_constant<int, 4>{});
            default:
                return launch(t, std::integral_constant<int, 8>{});
            }
        }
    });
}

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
