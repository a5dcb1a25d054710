// Which kernel computes a matmul, and how its work is cut. Host code without CUDA. C++17, for the kernels' files too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/plan/splits.h"
#include "quant/blocks.h"

namespace lk::cuda {

enum class MatmulKernel {
    vector,        // one token in floats
    vector_codes,  // one token in 8 bits
    few,           // few tokens in halves
    tiles,         // up to kTileColumns tokens in halves, quantized weights
    halves,        // cuBLAS; weights become halves first
};

constexpr bool is_float(WeightType type) {
    return type == WeightType::F32 || type == WeightType::F16 || type == WeightType::BF16;
}

constexpr int block_elements(WeightType type) {
    return is_float(type) ? 1 : type >= WeightType::Q2_K ? kSuperBlock : kBlock;
}

constexpr int block_bytes(WeightType type) {
    return type == WeightType::F32                               ? 4
           : type == WeightType::F16 || type == WeightType::BF16 ? 2
           : type == WeightType::Q4_0                            ? sizeof(BlockQ4_0)
           : type == WeightType::Q4_1                            ? sizeof(BlockQ4_1)
           : type == WeightType::Q5_0                            ? sizeof(BlockQ5_0)
           : type == WeightType::Q5_1                            ? sizeof(BlockQ5_1)
           : type == WeightType::Q8_0                            ? sizeof(BlockQ8_0)
           : type == WeightType::Q2_K                            ? sizeof(BlockQ2_K)
           : type == WeightType::Q3_K                            ? sizeof(BlockQ3_K)
           : type == WeightType::Q4_K                            ? sizeof(BlockQ4_K)
           : type == WeightType::Q5_K                            ? sizeof(BlockQ5_K)
                                                                 : sizeof(BlockQ6_K);
}

// Whether multiply_vector takes the vector in 8 bits.
constexpr bool takes_codes(WeightType type) {
    return type == WeightType::Q8_0 || type == WeightType::Q4_0 || type == WeightType::Q4_K ||
           type == WeightType::Q5_K || type == WeightType::Q6_K;
}

// Tokens that multiply_few takes at most; 1: it takes no such weights.
constexpr int few_columns(WeightType type) {
    return type == WeightType::F32 || type == WeightType::BF16   ? 32
           : type == WeightType::F16 || type >= WeightType::Q2_K ? 8
                                                                 : 1;
}

constexpr int kTileColumns = 64;

// What a device runs at once.
struct Processors {
    int count;
    int shared_bytes;  // of a block, at most
};

// The kernel for n tokens; supports_matmul and the launches use it. Throws LK_UNSUPPORTED, naming type and shape, if
// there is none. shared_bytes: see Processors.
MatmulKernel select_matmul(WeightType type, int64_t n_cols, int n, int shared_bytes);

bool supports_matmul(WeightType type, int64_t n_cols);

// Matrices of one type and width that are multiplied with the same input, in one launch.
struct FewProducts {
    static constexpr int kMost = 4;
    const uint8_t* w[kMost];  // [n_rows, n_cols]
    float* y[kMost];          // [n, n_rows]
    bool add[kMost];          // to what y holds
    int n_rows[kMost];
    int first_block[kMost];  // see count_blocks
    int count;
};

// Gives every product its blocks of rows_each rows; returns how many there are.
inline int count_blocks(FewProducts& products, int rows_each) {
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + rows_each - 1) / rows_each;
    }
    return n_blocks;
}

// How multiply_tiles shares its work: see matmul/tile.cu.
struct TilePlan {
    static constexpr int kRows = 96;
    static constexpr int kSums = kRows * kTileColumns;
    static constexpr int kStepElements = 256;
    static constexpr int kMostStages = 6;
    static constexpr int kLeastStages = 3;

    int n_tiles;  // of rows
    int n_steps;  // of a row
    Shares shares;
    int n_stages;
    int shared_bytes;

    size_t n_sums() const { return size_t{2} * static_cast<size_t>(shares.n_blocks) * kSums; }
};

// What a thread block of multiply_tiles takes of every row at once, and how it lies in shared memory.
struct TileStep {
    int bytes;         // of a row of weights
    int align;         // a row of weights begins at any multiple of it, and is copied from the multiple of 16 before
    int pieces;        // of 16 bytes
    int pitch;         // of rows; neighbours begin in other banks: an odd multiple of what four lanes read
    int weight_bytes;  // of all rows
    int column_pitch;

    static constexpr TileStep of(WeightType type) {
        TileStep s{};
        s.bytes = TilePlan::kStepElements / block_elements(type) * block_bytes(type);
        s.align = std::min(16, block_bytes(type) & -block_bytes(type));
        s.pieces = (s.bytes + 16 - s.align + 15) / 16;
        s.pitch = ((16 * s.pieces + 31) / 32 | 1) * 32;
        s.weight_bytes = TilePlan::kRows * s.pitch;
        s.column_pitch = 2 * TilePlan::kStepElements + 64;
        return s;
    }
    // column_tiles: of 8 columns.
    constexpr int stage_bytes(int column_tiles) const { return weight_bytes + 8 * column_tiles * column_pitch; }
};

// Tiles of 8 columns that the kernel for n columns has.
constexpr int column_tiles(int n) {
    return n <= 8 ? 1 : n <= 16 ? 2 : n <= 32 ? 4 : 8;
}

constexpr int tile_stages(WeightType type, int n, int shared_bytes) {
    return std::min(TilePlan::kMostStages, shared_bytes / TileStep::of(type).stage_bytes(column_tiles(n)));
}

// For products that select_matmul gives to `tiles`.
TilePlan plan_tiles(WeightType type, const FewProducts& products, int n_cols, int n, const Processors& processors);

// Throws LK_INTERNAL_ERROR: a launch was asked for weights that its kernel does not take.
[[noreturn]] void fail_weights(const char* operation, WeightType type);

}  // namespace lk::cuda
