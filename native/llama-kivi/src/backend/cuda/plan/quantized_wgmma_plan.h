// Plans the GEMMs of quantized weights with wgmma. Host and device code without CUDA; C++17, because kernels include
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/plan/matmul_plan.h"
#include "backend/cuda/plan/tile_units.h"

namespace lk::cuda {

// Weights that multiply_quantized_wgmma takes, in rows of whole steps.
constexpr bool takes_quantized_wgmma(WeightType type, int64_t n_cols) {
    return (type == WeightType::Q4_K || type == WeightType::Q5_K || type == WeightType::Q6_K ||
            type == WeightType::Q8_0) &&
           n_cols % TilePlan::kStepElements == 0;
}

// Fewest tokens that it multiplies faster than multiply_tiles, and most that several launches multiply faster than
// cuBLAS. Of some types it is faster from 9 tokens on, but their products share the input with those of other types.
constexpr int kQuantizedWgmmaFrom = 17;
constexpr int kQuantizedWgmmaMost = 128;

// Tokens per launch: of Q4_K, whose steps are the shortest, as many as leave two stages in shared memory. Other types
// are not faster so.
constexpr int quantized_wgmma_columns(WeightType type) {
    return type == WeightType::Q4_K ? 128 : 64;
}

// A step of a row. Those of Q8_0 are multiples of 16 bytes, though its blocks are not.
constexpr TileStep quantized_wgmma_step(WeightType type) {
    TileStep step = TileStep::of(type);
    if (type == WeightType::Q8_0) {
        step.align = 16;
        step.pieces = step.bytes / 16;
    }
    return step;
}

// A tile of 128 rows by 8 kN tokens, of which each of two warpgroups multiplies 64 rows. A step is 256 elements of each
// row. Another warpgroup copies the steps, and replaces a row's scales by what the decoders read.
template <WeightType kType_, int kN_>
struct QuantizedTile {
    static constexpr WeightType kType = kType_;
    static constexpr int kN = kN_;
    static constexpr int kGroups = 2;
    static constexpr int kRows = 64 * kGroups;
    static constexpr int kColumns = 8 * kN;
    static constexpr int kThreads = 128 * kGroups;  // that multiply
    static constexpr int kFetchThreads = 128;
    static constexpr int kAllThreads = kThreads + kFetchThreads;

    // Registers per thread: at the launch, of those that multiply, and of the others. A launch that takes less than all
    // registers lets blocks of the kernels before and after it share its multiprocessor.
    static constexpr int kRegisters = 128;
    static constexpr int kMultiplyRegisters = 160;
    static constexpr int kFetchRegisters = 64;
    static constexpr int kBoundThreads = 512;  // for so many, the compiler gives a thread kRegisters
    static_assert(kGroups * kMultiplyRegisters + kFetchRegisters == (kGroups + 1) * kRegisters);

    static constexpr TileStep kStep = quantized_wgmma_step(kType);
    static constexpr int kPitch = kStep.pitch;
    static constexpr int kPanels = TilePlan::kStepElements / 64;
    static constexpr int kPanelBytes = 128 * kColumns;
    static constexpr int kTokens = kRows * kPitch;  // where the tokens are in a stage
    static constexpr int kTokenBytes = kPanels * kPanelBytes;
    // Decoded scales of Q6_K; those of the K formats of 4 and 5 bits replace the stored ones.
    static constexpr int kScales = kTokens + kTokenBytes;
    static constexpr int kScaleBytes = kType == WeightType::Q6_K ? 32 : 0;  // of a row
    static constexpr int kStageBytes = kScales + kRows * kScaleBytes;
    static constexpr int kStages = std::min(6, (TilePlan::kMostSharedBytes - 1024) / kStageBytes);
    // The stages, two barriers per stage, and a word per warpgroup.
    static constexpr int kBarriers = kStages * kStageBytes;
    static constexpr int kFlags = kBarriers + 16 * kStages;
    static constexpr int kSharedBytes = kFlags + 4 * kGroups;
    static_assert(kStages >= 2 && kTokens % 1024 == 0 && kPanelBytes % 1024 == 0 && kStageBytes % 1024 == 0);

    // Row and token, in the tile, of sum i of the thread's tile t of 8 tokens.
    static constexpr int row_of(int thread, int /*m*/, int i) { return thread / 32 * 16 + i / 2 * 8 + thread % 32 / 4; }
    static constexpr int column_of(int thread, int t, int i) { return 8 * t + 2 * (thread % 4) + i % 2; }
};

// Work distribution of multiply_quantized_wgmma. It depends on the matrices and the GPU alone, so the order of summing
// does not depend on the number of tokens.
struct QuantizedPlan : TileUnits {
    static constexpr int kRows = 128;  // of weights per tile
    static constexpr int column_blocks = 1;

    // row_blocks: blocks of kRows rows of all matrices; see count_blocks.
    static constexpr QuantizedPlan of(int row_blocks, int n_cols, int n_processors) {
        return {TileUnits::of(row_blocks, n_cols / TilePlan::kStepElements, n_processors)};
    }

    // Floats of the slots, and counts of finished parts.
    constexpr size_t n_sums(int columns) const { return n_slots() * static_cast<size_t>(kRows * columns); }
    constexpr size_t n_counts() const { return static_cast<size_t>(n_tiles) * 2; }
};

// Throws LK_INTERNAL_ERROR, for a kernel whose launch has other registers than its warpgroups exchange.
[[noreturn]] void fail_registers(const char* kernel, int n_registers, int expected);

}  // namespace lk::cuda
