// The warpgroup of quantized_wgmma.cu that copies steps of weights and tokens into shared memory and decodes scales.
#pragma once

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/copy_box.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/halves_wgmma_stages.cuh"
#include "backend/cuda/matmul/quantized_wgmma_rows.cuh"
#include "backend/cuda/plan/quantized_wgmma_plan.h"

namespace lk::cuda {

namespace {

// Arguments of a launch.
struct QuantizedWork {
    OrderedProducts products;
    size_t row_bytes;
    float4* sums;  // [slot, kN, thread]; see QuantizedPlan::slot_of
    int* counts;   // [tile, warpgroup]
    QuantizedPlan plan;
    int n;
};
static_assert(kUnpadded<QuantizedPlan, TileUnits>);
static_assert(kUnpadded<QuantizedWork, OrderedProducts, size_t, void*, void*, QuantizedPlan, int>);

// Where a row of a step begins in its first 16-byte piece. Rows at distances of 8 have the same, as blocks have even
// sizes.
template <class Tile>
struct RowAlignment {
    static constexpr bool kAligned = Tile::kStep.align == 16;

    // row: in the tile. unit: step of all tiles.
    __device__ RowAlignment(const QuantizedWork& work, int row, int unit)
        : a(work), row(row), tile(unit / a.plan.n_steps), step(unit % a.plan.n_steps) {
        begin_tile();
    }

    __device__ void begin_tile() {
        if constexpr (!kAligned) {
            const FewProducts& matrices = a.products.matrices;
            const int which = product_of(matrices, min(tile, a.plan.n_tiles - 1));
            const unsigned first = (tile - matrices.first_block[which]) * Tile::kRows + row;
            address = static_cast<unsigned>(reinterpret_cast<uintptr_t>(matrices.w[which])) +
                      first * static_cast<unsigned>(a.row_bytes) + step * Tile::kStep.bytes;
        }
    }

    __device__ void advance() {
        if constexpr (!kAligned) {
            address += Tile::kStep.bytes;
            if (++step == a.plan.n_steps) {
                step = 0;
                ++tile;
                begin_tile();
            }
        }
    }

    __device__ int before() const { return kAligned ? 0 : static_cast<int>(address % 16); }

    const QuantizedWork& a;
    int row;
    int tile;
    int step;
    unsigned address = 0;  // its low bits
};

// The thread's copies of the weights of steps. 16 lanes copy the first 16 pieces of a row; a thread copies the 17th of
// its row.
template <class Tile>
struct StepCopies {
    static constexpr int kLanes = 16;
    static constexpr int kRowsAtOnce = Tile::kFetchThreads / kLanes;
    static constexpr bool kLongRows = Tile::kStep.pieces > kLanes;
    static_assert(Tile::kStep.pieces <= kLanes + 1 && kRowsAtOnce % 8 == 0);
    static_assert(!kLongRows || Tile::kStep.align == 16);

    __device__ StepCopies(const QuantizedWork& work, int thread, int unit)
        : a(work), thread(thread), row(thread / kLanes), piece(thread % kLanes), step(unit % a.plan.n_steps) {
        begin_tile(unit / a.plan.n_steps);
    }

    __device__ void begin_tile(int index) {
        tile = index;
        const FewProducts& matrices = a.products.matrices;
        const int which = product_of(matrices, min(tile, a.plan.n_tiles - 1));
        const int first = (tile - matrices.first_block[which]) * Tile::kRows + row;
        n_rows = matrices.n_rows[which] - first;
        from = matrices.w[which] +
               (static_cast<int64_t>(first) * static_cast<int>(a.row_bytes) + step * Tile::kStep.bytes + 16 * piece);
    }

    // Starts the copies of a step, and advances to the next.
    __device__ void copy(uint8_t* stage) {
        const int before = Tile::kStep.align == 16 ? 0 : static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16);
        const bool copied = piece < Tile::kStep.pieces && 16 * piece - before < Tile::kStep.bytes;
        const int rows = copied ? n_rows : 0;
        const unsigned to = shared_address(stage) + row * Tile::kPitch + 16 * piece;
        const uint8_t* of_row = from - before;
        const int64_t distance = static_cast<int64_t>(kRowsAtOnce) * static_cast<int>(a.row_bytes);
#pragma unroll 8
        for (int k = 0; k < Tile::kRows / kRowsAtOnce; ++k) {
            copy_async_if(k * kRowsAtOnce < rows, to + k * kRowsAtOnce * Tile::kPitch, of_row);
            of_row += distance;
        }
        if constexpr (kLongRows) {
            const int64_t down = thread - row;
#pragma unroll
            for (int k = 0; k < Tile::kRows / Tile::kFetchThreads; ++k) {
                const int further = k * Tile::kFetchThreads;
                copy_async_if(thread - row + further < n_rows,
                              shared_address(stage) + (thread + further) * Tile::kPitch + 16 * kLanes,
                              from + (down + further) * static_cast<int>(a.row_bytes) + 16 * (kLanes - piece));
            }
        }
        copy_commit();
        from += Tile::kStep.bytes;
        if (++step == a.plan.n_steps) {
            step = 0;
            begin_tile(tile + 1);
        }
    }

    const QuantizedWork& a;
    int thread;
    int row;
    int piece;
    int step;
    int tile;
    int n_rows;  // from the thread's first row on
    const uint8_t* from;
};

// Copies the thread block's steps and decodes their scales; for the warpgroup that does not multiply.
template <class Tile>
__device__ __forceinline__ void fetch_quantized_steps(const TensorMap& tokens, const QuantizedWork& a,
                                                      const WgmmaStages<Tile>& stages, uint8_t* shared) {
    // Weights are copied so many steps before their scales are decoded.
    constexpr int kAhead = Tile::kStages - 2;
    const int thread = threadIdx.x - Tile::kThreads;
    const int begin = a.plan.shares.begin(blockIdx.x);
    const int n_steps = a.plan.shares.begin(blockIdx.x + 1) - begin;
    const auto copy_tokens = [&](int i, int stage) {
        if (thread == 0) {
            barrier_arrive(stages.full(stage), Tile::kTokenBytes);
            const int element = (begin + i) % a.plan.n_steps * TilePlan::kStepElements;
#pragma unroll
            for (int panel = 0; panel < Tile::kPanels; ++panel) {
                copy_box(stages.at(stage) + Tile::kTokens + panel * Tile::kPanelBytes, tokens, 0,
                         element + kPanelHalves * panel, stages.full(stage));
            }
        }
    };
    StepCopies<Tile> copies(a, thread, begin);
    RowAlignment<Tile> alignment(a, thread, begin);
    int issued = 0;  // steps whose copies of weights have begun
    // Prefetch weights before the preceding kernels finish.
#pragma unroll 1
    for (; issued < min(n_steps, Tile::kStages); ++issued) {
        copies.copy(shared + issued * Tile::kStageBytes);
    }
    wait_for_previous();
    for (int i = 0; i < issued; ++i) {
        copy_tokens(i, i);
    }
    WgmmaCursor<Tile> to;    // of step i + kAhead
    WgmmaCursor<Tile> done;  // of step i
    for (int i = 0; i < kAhead; ++i) {
        to.advance();
    }
#pragma unroll 1
    for (int i = 0; i < n_steps; ++i) {
        if (issued <= i + kAhead && issued < n_steps) {
            barrier_wait(stages.free(to.stage), to.parity ^ 1);
            copies.copy(shared + to.stage * Tile::kStageBytes);
            copy_tokens(issued, to.stage);
            ++issued;
        }
        to.advance();
        wait_for_all_but<Tile::kStages - 1>(issued - 1 - i);
        sync_threads_of<Tile::kFetchThreads>(1 + Tile::kGroups);
        uint8_t* const stage = shared + done.stage * Tile::kStageBytes;
#pragma unroll
        for (int row = thread; row < Tile::kRows; row += Tile::kFetchThreads) {
            QuantizedRow<Tile::kType>::prepare_scales(stage + row * Tile::kPitch + alignment.before(),
                                                      stage + Tile::kScales + row * Tile::kScaleBytes);
        }
        alignment.advance();
        barrier_arrive(stages.full(done.stage));
        done.advance();
    }
}

}  // namespace

}  // namespace lk::cuda
