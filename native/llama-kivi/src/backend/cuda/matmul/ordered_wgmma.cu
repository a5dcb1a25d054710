// GEMMs of halves in the order of summing of ordered.cu, with wgmma. A warp fetches steps of the rows and tokens of the
// thread block's units into shared memory, ahead of the warpgroups that multiply them, also across units. When several
// units share a tile, the last to finish adds the partial sums.
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/halves_wgmma_sums.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/plan/ordered_wgmma_plan.h"

namespace lk::cuda {

namespace {

// Fetches the steps of the thread block's units; for one thread.
template <class Tile>
__device__ void fetch_units(const HalvesMaps& maps, const OrderedWork& a, const WgmmaStages<Tile>& stages) {
    using Place = TilePlace<Tile>;
    fetch_steps<Tile, Place>(maps, a.products.constant, stages, [&](auto&& f) {
#pragma unroll 1
        for (int index = blockIdx.x; index < a.plan.n_units(); index += a.plan.n_blocks) {
            const OrderedUnit unit = a.plan.unit_of(index);
            const Place place(a, unit.tile);
#pragma unroll 1
            for (int segment = unit.first_segment; segment < unit.end_segment(); ++segment) {
                const int end = a.plan.segments.end_of(segment);
#pragma unroll 1
                for (int chunk = a.plan.segments.begin_of(segment); chunk < end; chunk += Tile::kStepChunks) {
                    if (!f(place, 32 * chunk, (min(Tile::kStepChunks, end - chunk) + 1) / 2)) {
                        return;
                    }
                }
            }
        }
    });
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
            multiply_chunks<Tile>(stages, a.plan.segments.end_of(segment) - a.plan.segments.begin_of(segment), at,
                                  sums);
            if (unit.first_segment > 0) {
                store_sums<Tile>(sums_at<Tile>(a, unit.tile, a.plan.slot_of(segment)), sums);
            } else if (segment + 1 < unit.n_segments) {
                totals.add(segment == 0, sums);
            } else if (segment > 0) {
                totals.add_to(sums);
            }
        }
        if (!unit.whole()) {
            if (unit.first_segment == 0) {
                store_sums<Tile>(sums_at<Tile>(a, unit.tile, 0), sums);
            }
            int* const counts = a.counts + (unit.tile - a.plan.n_whole) * Tile::kGroups;
            if (!is_last_part<Tile>(counts + threadIdx.x / 128, a.plan.parts, shared)) {
                continue;
            }
            load_total<Tile>(
                a.plan.slots(), [&](int slot) { return sums_at<Tile>(a, unit.tile, slot); }, sums);
        }
        write_sums(TilePlace<Tile>(a, unit.tile), sums);
    }
}

// Grid: [plan.n_blocks].
template <class Tile>
__global__ void __launch_bounds__(Tile::kAllThreads, Tile::kBlocks)
    multiply_ordered_wgmma_kernel(const __grid_constant__ HalvesMaps maps, const __grid_constant__ OrderedWork a) {
    extern __shared__ __align__(1024) uint8_t shared[];
    divide_block<Tile>(
        shared, [&](const auto& stages) { multiply_units<Tile>(a, stages, shared); },
        [&](const auto& stages) { fetch_units<Tile>(maps, a, stages); });
}

}  // namespace

void multiply_ordered_wgmma(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                            float* sums, int* counts, Stream& stream) {
    count_blocks(products.matrices, plan.rows);
    const OrderedWork work{products, x, reinterpret_cast<float4*>(sums), counts, plan, n_cols, n};
    with_wgmma_tile(plan.columns, [&](auto tile) {
        using Tile = decltype(tile);
        const HalvesMaps maps = map_products<Tile>(products.matrices, n_cols, x, n);
        constexpr auto* kKernel = multiply_ordered_wgmma_kernel<Tile>;
        static const bool raised = raise_shared_bytes_and_carveout(kKernel);
        static_cast<void>(raised);
        queue(kKernel, plan.n_blocks, Tile::kAllThreads, Tile::kSharedBytes, stream, maps, work);
    });
}

}  // namespace lk::cuda
