// GEMMs of halves in the order of summing of ordered.cu, with wgmma. A warp fetches steps of the rows and tokens of the
// thread block's units into shared memory, ahead of the warpgroups that multiply them, also across units. When several
// units share a tile, the last to finish adds the partial sums.
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/ordered_wgmma_parts.cuh"
#include "backend/cuda/matmul/raise_shared.cuh"

namespace lk::cuda {

namespace {

// Fetches the steps of the thread block's units; for one thread.
template <class Tile>
__device__ void fetch_units(const OrderedMaps& maps, const OrderedWork& a, const WgmmaStages<Tile>& stages) {
    // Calls f(place, element, boxes) for the steps of a unit, until it returns false.
    const auto for_steps = [&](int index, auto&& f) {
        const OrderedUnit unit = a.plan.unit_of(index);
        const TilePlace<Tile> place(a, unit.tile);
        for (int segment = unit.first_segment; segment < unit.end_segment(); ++segment) {
            const int end = a.plan.segments.end_of(segment);
            for (int chunk = a.plan.segments.begin_of(segment); chunk < end; chunk += Tile::kStepChunks) {
                if (!f(place, 32 * chunk, (min(Tile::kStepChunks, end - chunk) + 1) / 2)) {
                    return;
                }
            }
        }
    };
    const auto fetch_rows = [&](const TilePlace<Tile>& place, int element, int boxes, int stage) {
        barrier_arrive(stages.full(stage), boxes * Tile::kBoxBytes);
        for (int box = 0; box < boxes; ++box) {
            copy_box(stages.at(stage) + Tile::rows_at(box), maps.rows[place.which], place.first_row,
                     element + kBoxColumns * box, stages.full(stage));
        }
    };
    const auto fetch_columns = [&](const TilePlace<Tile>& place, int element, int boxes, int stage) {
        for (int box = 0; box < boxes; ++box) {
            copy_box(stages.at(stage) + Tile::columns_at(box), maps.columns, place.first_column,
                     element + kBoxColumns * box, stages.full(stage));
        }
    };

    // Prefetch weights before the preceding kernels finish.
    if (!a.products.constant) {
        wait_for_previous();
    }
    int n_ahead = 0;
    for_steps(blockIdx.x, [&](const TilePlace<Tile>& place, int element, int boxes) {
        fetch_rows(place, element, boxes, n_ahead);
        return ++n_ahead < Tile::kStages;
    });
    if (a.products.constant) {
        wait_for_previous();
    }
    WgmmaCursor<Tile> at;
    for (int index = blockIdx.x; index < a.plan.n_units(); index += a.plan.n_blocks) {
        for_steps(index, [&](const TilePlace<Tile>& place, int element, int boxes) {
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
}

// sums = the products of a segment.
template <class Tile>
__device__ __forceinline__ void multiply_segment(const WgmmaStages<Tile>& stages, int n_chunks, WgmmaCursor<Tile>& at,
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

// Multiplies the thread block's units; for the warpgroups.
template <class Tile>
__device__ void multiply_units(const OrderedWork& a, const WgmmaStages<Tile>& stages, uint8_t* shared) {
    wait_for_previous();
    WgmmaCursor<Tile> at;
    TileSums<Tile> sums;
    for (int index = blockIdx.x; index < a.plan.n_units(); index += a.plan.n_blocks) {
        const OrderedUnit unit = a.plan.unit_of(index);
        WgmmaTotals<Tile> totals(shared);
        // The first part of a tile adds its segments; the others store each segment, because the sum before it is
        // missing.
        for (int segment = unit.first_segment; segment < unit.end_segment(); ++segment) {
            multiply_segment(stages, a.plan.segments.end_of(segment) - a.plan.segments.begin_of(segment), at, sums);
            if (unit.first_segment > 0) {
                store_sums<Tile>(a, unit.tile, a.plan.slot_of(segment), sums);
            } else if (segment + 1 < unit.n_segments) {
                totals.add(segment == 0, sums);
            } else if (segment > 0) {
                totals.add_to(sums);
            }
        }
        if (!unit.whole()) {
            if (unit.first_segment == 0) {
                store_sums<Tile>(a, unit.tile, 0, sums);
            }
            if (!is_last_part<Tile>(a, unit.tile, shared)) {
                continue;
            }
            load_total<Tile>(a, unit.tile, sums);
        }
        write_sums(TilePlace<Tile>(a, unit.tile), sums);
    }
}

// Grid: [plan.n_blocks].
template <class Tile>
__global__ void __launch_bounds__(Tile::kAllThreads, Tile::kBlocks)
    multiply_ordered_wgmma_kernel(const __grid_constant__ OrderedMaps maps, const __grid_constant__ OrderedWork a) {
    extern __shared__ __align__(1024) uint8_t shared[];
    start_next();
    const WgmmaStages<Tile> stages(shared);
    if (threadIdx.x == 0) {
        stages.init();
    }
    __syncthreads();
    if (threadIdx.x < Tile::kThreads) {
        if constexpr (Tile::kGivesRegisters) {
            warpgroup_take_registers<240>();
        }
        multiply_units<Tile>(a, stages, shared);
        return;
    }
    if constexpr (Tile::kGivesRegisters) {
        warpgroup_give_registers<24>();
    }
    if (threadIdx.x == Tile::kThreads) {
        fetch_units<Tile>(maps, a, stages);
    }
}

}  // namespace

void multiply_ordered_wgmma(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                            float* sums, int* counts, Stream& stream) {
    count_blocks(products.matrices, plan.rows);
    const OrderedWork work{products, x, reinterpret_cast<float4*>(sums), counts, plan, n_cols, n};
    OrderedMaps maps{};
    for (int i = 0; i < products.matrices.count; ++i) {
        maps.rows[i] = map_halves(products.matrices.w[i], products.matrices.n_rows[i], n_cols, plan.rows);
    }
    maps.columns = map_halves(x, n, n_cols, plan.columns);
    with_wgmma_tile(plan.columns, [&](auto tile) {
        using Tile = decltype(tile);
        constexpr auto* kKernel = multiply_ordered_wgmma_kernel<Tile>;
        static const bool raised = raise_shared_bytes_and_carveout(kKernel);
        static_cast<void>(raised);
        queue(kKernel, plan.n_blocks, Tile::kAllThreads, Tile::kSharedBytes, stream, maps, work);
    });
}

}  // namespace lk::cuda
