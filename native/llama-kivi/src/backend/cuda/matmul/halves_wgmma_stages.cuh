// GEMMs of halves with wgmma: stages in shared memory, filled by one thread and multiplied by the warpgroups.
// few_wgmma.cu and ordered_wgmma.cu use them, and quantized_wgmma.cu some.
#pragma once

#include "backend/cuda/device/copy_box.cuh"
#include "backend/cuda/device/phase_barrier.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/wgmma.cuh"
#include "backend/cuda/matmul/ordered_work.cuh"
#include "backend/cuda/plan/wgmma_tile.h"

namespace lk::cuda {

namespace {

struct HalvesMaps {
    TensorMap rows[FewProducts::kMost];  // of the matrices
    TensorMap columns;                   // of x
};
static_assert(kUnpadded<HalvesMaps, TensorMap[FewProducts::kMost + 1]>);
static_assert(kBoxColumns == kPanelHalves, "a box is an operand of multiply_group");

// x: [n, n_cols].
template <class Tile>
HalvesMaps map_products(const FewProducts& matrices, int n_cols, const uint16_t* x, int n) {
    HalvesMaps maps{};
    for (int i = 0; i < matrices.count; ++i) {
        maps.rows[i] = map_halves(matrices.w[i], matrices.n_rows[i], n_cols, Tile::kRows);
    }
    maps.columns = map_halves(x, n, n_cols, Tile::kColumns);
    return maps;
}

// Sums of a thread; see multiply_group.
template <class Tile>
using TileSums = float[Tile::kN][4];

// Calls f(t, i) for the sums of a thread.
template <class Tile, class F>
__device__ __forceinline__ void for_sums(F&& f) {
#pragma unroll
    for (int t = 0; t < Tile::kN; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            f(t, i);
        }
    }
}

// The stages in shared memory, and their barriers: a stage is full when its copies are done, and free when all warps
// have multiplied it.
template <class Tile>
struct WgmmaStages {
    __device__ explicit WgmmaStages(const uint8_t* shared) : shared(shared), base(shared_address(shared)) {}

    // arrivals: that fill a stage, besides bytes.
    __device__ void init(int arrivals) const {
        for (int i = 0; i < Tile::kStages; ++i) {
            barrier_init(full(i), arrivals);
            barrier_init(free(i), Tile::kThreads / 32);
        }
        barrier_init_done();
    }
    __device__ const uint8_t* data(int stage) const { return shared + stage * Tile::kStageBytes; }
    __device__ unsigned at(int stage) const { return base + stage * Tile::kStageBytes; }
    __device__ unsigned full(int stage) const { return base + Tile::kBarriers + 16 * stage; }
    __device__ unsigned free(int stage) const { return full(stage) + 8; }
    __device__ void release(int stage) const {
        if (threadIdx.x % 32 == 0) {
            barrier_arrive(free(stage));
        }
    }

    const uint8_t* shared;
    unsigned base;
};

// The next stage, and the parity of its barriers' phase: 0 for the first use.
template <class Tile>
struct WgmmaCursor {
    __device__ void advance() {
        const bool wraps = ++stage == Tile::kStages;
        stage = wraps ? 0 : stage;
        parity ^= wraps ? 1 : 0;
    }

    int stage = 0;
    unsigned parity = 0;
};

// Fetches the thread block's steps; for one thread. for_steps(f): calls f(place, element, boxes) for each step in
// order, until it returns false. constant: no kernel writes the weights.
template <class Tile, class Place, class ForSteps>
__device__ void fetch_steps(const HalvesMaps& maps, bool constant, const WgmmaStages<Tile>& stages,
                            const ForSteps& for_steps) {
    const auto fetch_rows = [&](const Place& place, int element, int boxes, int stage) {
        barrier_arrive(stages.full(stage), boxes * Tile::kBoxBytes);
        for (int box = 0; box < boxes; ++box) {
            copy_box(stages.at(stage) + Tile::rows_at(box), maps.rows[place.which], place.first_row,
                     element + kBoxColumns * box, stages.full(stage));
        }
    };
    const auto fetch_columns = [&](const Place& place, int element, int boxes, int stage) {
        for (int box = 0; box < boxes; ++box) {
            copy_box(stages.at(stage) + Tile::columns_at(box), maps.columns, place.first_column,
                     element + kBoxColumns * box, stages.full(stage));
        }
    };

    // Prefetch weights before the preceding kernels finish.
    if (!constant) {
        wait_for_previous();
    }
    int n_ahead = 0;
    for_steps([&](const Place& place, int element, int boxes) {
        fetch_rows(place, element, boxes, n_ahead);
        return ++n_ahead < Tile::kStages;
    });
    if (constant) {
        wait_for_previous();
    }
    WgmmaCursor<Tile> at;
    for_steps([&](const Place& place, int element, int boxes) {
        if (n_ahead > 0) {
            --n_ahead;
        } else {
            barrier_wait(stages.free(at.stage), at.parity ^ 1);
            fetch_rows(place, element, boxes, at.stage);
        }
        fetch_columns(place, element, boxes, at.stage);
        at.advance();
        return true;
    });
}

// sums = the products of the next n_chunks chunks.
template <class Tile>
__device__ __forceinline__ void multiply_chunks(const WgmmaStages<Tile>& stages, int n_chunks, WgmmaCursor<Tile>& at,
                                                TileSums<Tile>& sums) {
    const int group = threadIdx.x / 128;
    for_sums<Tile>([&](int t, int i) { sums[t][i] = 0; });
    hold(sums);
    int previous = -1;  // stage that may still be read
    // multiply_all: calls its argument with each 16 elements of the step.
    const auto step = [&](auto&& multiply_all) {
        barrier_wait(stages.full(at.stage), at.parity);
        const uint8_t* const stage = stages.data(at.stage);
        warpgroup_begin();
        multiply_all([&](int k) {
            const PanelOperand rows(stage + Tile::rows_at(k / 4) + Tile::group_at(group));
            const PanelOperand columns(stage + Tile::columns_at(k / 4));
            multiply_group(sums, rows.from(16 * (k % 4)), columns.from(16 * (k % 4)));
        });
        warpgroup_commit();
        warpgroup_wait<1>();
        if (previous >= 0) {
            stages.release(previous);
        }
        previous = at.stage;
        at.advance();
    };
    int chunk = 0;
    for (; chunk + Tile::kStepChunks <= n_chunks; chunk += Tile::kStepChunks) {
        step([](auto&& multiply) {
#pragma unroll
            for (int k = 0; k < 2 * Tile::kStepChunks; ++k) {
                multiply(k);
            }
        });
    }
    if (chunk < n_chunks) {
        step([&](auto&& multiply) {
#pragma unroll
            for (int c = 0; c < Tile::kStepChunks - 1; ++c) {
                if (chunk + c < n_chunks) {
                    multiply(2 * c);
                    multiply(2 * c + 1);
                }
            }
        });
    }
    warpgroup_wait<0>();
    hold(sums);
    if (previous >= 0) {
        stages.release(previous);
    }
}

// The roles of a thread block: multiply(stages) for the warpgroups, fetch(stages) for one thread.
template <class Tile, class Multiply, class Fetch>
__device__ __forceinline__ void divide_block(const uint8_t* shared, Multiply&& multiply, Fetch&& fetch) {
    start_next();
    const WgmmaStages<Tile> stages(shared);
    if (threadIdx.x == 0) {
        stages.init(1);
    }
    __syncthreads();
    if (threadIdx.x < Tile::kThreads) {
        if constexpr (Tile::kGivesRegisters) {
            warpgroup_take_registers<240>();
        }
        multiply(stages);
        return;
    }
    if constexpr (Tile::kGivesRegisters) {
        warpgroup_give_registers<24>();
    }
    if (threadIdx.x == Tile::kThreads) {
        fetch(stages);
    }
}

}  // namespace

}  // namespace lk::cuda
