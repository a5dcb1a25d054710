// Selects the kernel of a matmul and plans its work. Host code without CUDA; C++17, because kernels include it too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/device/processors.h"
#include "backend/cuda/device/weight_type.h"
#include "backend/cuda/plan/splits.h"
#include "quant/blocks.h"

namespace lk::cuda {

enum class MatmulKernel {
    stream,           // one token in floats or 8 bits; weights through shared memory, see `streams`
    vector,           // one token in floats
    vector_codes,     // one token in 8 bits
    few,              // few tokens in halves, float weights
    few_wgmma,        // the same with wgmma: up to FewPlan::kMostTokens tokens, F16 weights
    tiles,            // up to kTileColumns tokens in halves, quantized weights
    quantized_wgmma,  // the same with wgmma: weights of takes_quantized_wgmma, tokens in lane halves; see ToLaneHalves
    halves,           // cuBLAS, after converting weights to halves
    ordered,          // batch-invariant: any number of tokens, after converting weights to halves; with wgmma if it can
    ordered_few,      // the same order of summing for few tokens and float weights
};

// Whether kernels with one token need it in 8 bits.
constexpr bool takes_codes(WeightType type) {
    return type == WeightType::Q8_0 || type == WeightType::Q4_0 || type == WeightType::Q4_K ||
           type == WeightType::Q5_K || type == WeightType::Q6_K;
}

// Most tokens that multiply_few takes; 1 if it does not take this type.
constexpr int few_columns(WeightType type) {
    return type == WeightType::F32 || type == WeightType::BF16 ? 32 : type == WeightType::F16 ? 8 : 1;
}

constexpr int kTileColumns = 64;  // tokens of a launch of multiply_tiles

constexpr bool takes_lane_halves(MatmulKernel kernel) {
    return kernel == MatmulKernel::quantized_wgmma;
}

// Selects the kernel for n tokens; the launches use it too. Throws LK_UNSUPPORTED if there is none; the message names
// type and shape. invariant: the kernels of a type have the same order of summing for every n; `tiles` and
// `quantized_wgmma` then take any n.
MatmulKernel select_matmul(WeightType type, int64_t n_cols, int n, const Processors& processors, bool invariant);

bool supports_matmul(WeightType type, int64_t n_cols);

// Weight matrices of one type and width, multiplied by the same input in one launch.
struct FewProducts {
    static constexpr int kMost = 4;
    const uint8_t* w[kMost];  // [n_rows, n_cols]
    float* y[kMost];          // [n, n_rows]
    bool add[kMost];          // add to y instead of overwriting it
    int n_rows[kMost];
    int first_block[kMost];  // see count_blocks
    int count;
};

// Assigns thread blocks of rows_each rows to the matrices; returns their number.
inline int count_blocks(FewProducts& products, int rows_each) {
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + rows_each - 1) / rows_each;
    }
    return n_blocks;
}

// Index of the matrix that a block of rows belongs to.
constexpr int product_of(const FewProducts& products, int block) {
    int which = 0;
    for (int i = 1; i < FewProducts::kMost; ++i) {
        which += i < products.count && block >= products.first_block[i] ? 1 : 0;
    }
    return which;
}

// The matrices from `first` on that one call of cuBLAS multiplies: of one shape, and as far apart as the first two. It
// takes no others, but its thread blocks fill the multiprocessors better than those of several calls.
struct GemmBatch {
    int count;
    int64_t w_stride;  // halves
    int64_t y_stride;  // floats

    static GemmBatch of(const FewProducts& products, int first);
};

// Work distribution of multiply_tiles; see matmul/tile.cu.
struct TilePlan {
    static constexpr int kRows = 128;
    static constexpr int kSums = kRows * kTileColumns;
    static constexpr int kStepElements = 256;
    static constexpr int kMostStages = 6;
    static constexpr int kLeastStages = 3;
    static constexpr int kMostSharedBytes = 227 * 1024;  // kernels are compiled for the stages that fit in it

    int n_tiles;  // row tiles of all matrices
    int n_steps;  // steps per tile
    Shares shares;
    int n_stages;
    int shared_bytes;

    size_t n_sums() const { return size_t{2} * static_cast<size_t>(shares.n_blocks) * kSums; }
};

// One step of multiply_tiles: sizes per row and layout in shared memory.
struct TileStep {
    int bytes;         // bytes per row of weights
    int align;         // rows start at multiples of this, and are copied from the preceding multiple of 16
    int pieces;        // 16-byte pieces per row
    int pitch;         // bytes between rows: an odd multiple of 32, so that neighbours start in different banks
    int weight_bytes;  // bytes of all rows

    static constexpr int kColumnBytes = 2 * TilePlan::kStepElements;  // bytes of a token

    static constexpr TileStep of(WeightType type) {
        TileStep s{};
        s.bytes = TilePlan::kStepElements / block_elements(type) * block_bytes(type);
        s.align = std::min(16, block_bytes(type) & -block_bytes(type));
        s.pieces = (s.bytes + 16 - s.align + 15) / 16;
        s.pitch = ((16 * s.pieces + 31) / 32 | 1) * 32;
        s.weight_bytes = TilePlan::kRows * s.pitch;
        return s;
    }
    // column_tiles: tiles of 8 tokens.
    constexpr int stage_bytes(int column_tiles) const { return weight_bytes + 8 * column_tiles * kColumnBytes; }
};

// Tiles of 8 tokens in the kernel for n tokens.
constexpr int column_tiles(int n) {
    return n <= 8 ? 1 : n <= 16 ? 2 : n <= 32 ? 4 : 8;
}

constexpr int tile_stages(WeightType type, int n, int shared_bytes) {
    const int most = std::min(shared_bytes, TilePlan::kMostSharedBytes);
    return std::min(TilePlan::kMostStages, most / TileStep::of(type).stage_bytes(column_tiles(n)));
}

// Plans a launch of multiply_tiles.
TilePlan plan_tiles(WeightType type, const FewProducts& products, int n_cols, int n, const Processors& processors);

// Tokens per launch of multiply_tiles in a batch-invariant pass, which may have any number of them; 0: shared memory is
// too small.
constexpr int tile_columns(WeightType type, int shared_bytes) {
    for (int columns = kTileColumns; columns >= 8; columns /= 2) {
        if (tile_stages(type, columns, shared_bytes) >= TilePlan::kLeastStages) {
            return columns;
        }
    }
    return 0;
}

// Throws LK_INTERNAL_ERROR, for weights that the kernel of a launch does not take.
[[noreturn]] void fail_weights(const char* operation, WeightType type);

}  // namespace lk::cuda
