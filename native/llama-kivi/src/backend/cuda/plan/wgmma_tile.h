// Tiles of the GEMMs of halves with wgmma: where their halves are in shared memory and which rows and tokens a thread
// sums. Host and device code without CUDA; C++17, because kernels include it.
#pragma once

#include <algorithm>

namespace lk::cuda {

// 64 kGroups rows of weights by kColumns tokens: kGroups warpgroups multiply, and one more warp copies. A step is
// kStepChunks chunks of 32 elements: kBoxes boxes of 64 elements of the rows, then of the tokens. kBlocks thread blocks
// fit on a multiprocessor.
template <int kGroups_, int kColumns_, int kStepChunks_, int kStages_, int kBlocks_>
struct WgmmaTile {
    static constexpr int kGroups = kGroups_;
    static constexpr int kColumns = kColumns_;
    static constexpr int kStepChunks = kStepChunks_;
    static constexpr int kStages = kStages_;
    static constexpr int kBlocks = kBlocks_;
    static constexpr int kRows = 64 * kGroups;
    static constexpr int kM = 1;
    static constexpr int kN = kColumns / 8;
    static constexpr int kSums = 4 * kN;            // of a thread
    static constexpr int kThreads = 128 * kGroups;  // that multiply
    // A warp copies; as a warpgroup it can give its registers to the others, which 256 tokens need.
    static constexpr bool kGivesRegisters = kColumns == 256;
    static constexpr int kAllThreads = kThreads + (kGivesRegisters ? 128 : 32);

    static constexpr int kRowBytes = 128;  // of a box
    static constexpr int kBoxes = kStepChunks / 2;
    static constexpr int kBoxBytes = (kRows + kColumns) * kRowBytes;
    static constexpr int kStageBytes = kBoxes * kBoxBytes;
    // The sums of earlier segments are in registers, as far as these suffice, and in shared memory.
    static constexpr int kKept = std::min(kN, 16);  // tiles of 8 tokens
    static constexpr int kTotalBytes = 16 * (kN - kKept) * kThreads;
    // The stages, the totals, two barriers per stage, and a word per warpgroup.
    static constexpr int kTotals = kStages * kStageBytes;
    static constexpr int kBarriers = kTotals + kTotalBytes;
    static constexpr int kFlags = kBarriers + 16 * kStages;
    static constexpr int kSharedBytes = kFlags + 4 * kGroups;
    static_assert(kStepChunks % 2 == 0 && kBoxBytes % 1024 == 0);

    // A box in a stage.
    static constexpr int rows_at(int box) { return box * kRows * kRowBytes; }
    static constexpr int columns_at(int box) { return kBoxes * kRows * kRowBytes + box * kColumns * kRowBytes; }
    // The rows of a warpgroup in a box.
    static constexpr int group_at(int group) { return 64 * group * kRowBytes; }

    // Row and token, in the tile, of sum i of the thread's tile t of 8 tokens.
    static constexpr int row_of(int thread, int /*m*/, int i) { return thread / 32 * 16 + i / 2 * 8 + thread % 32 / 4; }
    static constexpr int column_of(int thread, int t, int i) { return 8 * t + 2 * (thread % 4) + i % 2; }
};

// Of multiply_ordered_wgmma, by number of tokens. Up to 64, reading the weights takes the time, and more thread blocks
// read at once.
using WgmmaTile8 = WgmmaTile<1, 8, 4, 4, 3>;
using WgmmaTile16 = WgmmaTile<1, 16, 4, 3, 3>;
using WgmmaTile32 = WgmmaTile<2, 32, 2, 5, 2>;
using WgmmaTile64 = WgmmaTile<2, 64, 2, 4, 2>;
using WgmmaTile128 = WgmmaTile<2, 128, 2, 6, 1>;
using WgmmaTile256 = WgmmaTile<2, 256, 2, 3, 1>;

// Calls f with the tile of this many tokens.
template <class F>
auto with_wgmma_tile(int columns, F&& f) {
    switch (columns) {
    case WgmmaTile8::kColumns:
        return f(WgmmaTile8{});
    case WgmmaTile16::kColumns:
        return f(WgmmaTile16{});
    case WgmmaTile32::kColumns:
        return f(WgmmaTile32{});
    case WgmmaTile64::kColumns:
        return f(WgmmaTile64{});
    case WgmmaTile128::kColumns:
        return f(WgmmaTile128{});
    default:
        return f(WgmmaTile256{});
    }
}

}  // namespace lk::cuda
