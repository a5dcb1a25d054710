// GEMMs of F16 weights with 2 to 8 tokens and wgmma, bound by reading the weights. A warp fetches steps of rows and
// tokens into shared memory, ahead of the warpgroups that multiply them. Thread blocks have equally many steps
// (FewPlan); the block that finishes a tile's last part adds all parts in the order of their elements.
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/halves_wgmma_sums.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/plan/few_plan.h"

namespace lk::cuda {

namespace {

// Arguments of a launch.
struct FewWork {
    OrderedProducts products;
    float4* sums;  // [slot, kN, thread]; see FewPlan::slot_of
    int* counts;   // [tile, warpgroup]
    FewPlan plan;
    int n;
    int unused = 0;  // no padding; see RowsWatch
};
static_assert(kUnpadded<FewPlan, TileUnits, int>);
static_assert(kUnpadded<FewWork, OrderedProducts, void*, void*, FewPlan, int, int>);

// Calls f(unit) for the units of the thread block in order, until it returns false.
template <class F>
__device__ __forceinline__ void for_units(const FewPlan& plan, F&& f) {
    const int end = plan.shares.begin(blockIdx.x + 1);
    for (int step = plan.shares.begin(blockIdx.x); step < end;) {
        const TileUnit unit = plan.unit_at(step, end);
        if (!f(unit)) {
            return;
        }
        step += unit.end - unit.first;
    }
}

using Tile = FewTile;

__device__ void fetch_units(const HalvesMaps& maps, const FewWork& a, const WgmmaStages<Tile>& stages) {
    using Place = TilePlace<Tile>;
    fetch_steps<Tile, Place>(maps, a.products.constant, stages, [&](auto&& f) {
        for_units(a.plan, [&](const TileUnit& unit) {
            const Place place(a, unit.tile);
#pragma unroll 1
            for (int step = unit.first; step < unit.end; ++step) {
                if (!f(place, 32 * Tile::kStepChunks * step, Tile::kBoxes)) {
                    return false;
                }
            }
            return true;
        });
    });
}

// For the warpgroups.
__device__ void multiply_units(const FewWork& a, const WgmmaStages<Tile>& stages, uint8_t* shared) {
    wait_for_previous();
    const auto place_of = [&](int block, int tile) {
        return a.sums + static_cast<size_t>(a.plan.slot_of(block, tile)) * (Tile::kN * Tile::kThreads) + threadIdx.x;
    };
    WgmmaCursor<Tile> at;
    TileSums<Tile> sums;
    for_units(a.plan, [&](const TileUnit& unit) {
        multiply_chunks<Tile>(stages, a.plan.chunks_of(unit), at, sums);
        if (!a.plan.whole(unit)) {
            store_sums<Tile>(place_of(blockIdx.x, unit.tile), sums);
            int* const count = a.counts + unit.tile * Tile::kGroups + threadIdx.x / 128;
            const int n_parts = a.plan.n_parts(unit.tile);
            if (!is_last_part<Tile>(count, n_parts, shared)) {
                return true;
            }
            const int first = a.plan.first_block(unit.tile);
            load_total<Tile>(
                n_parts, [&](int part) { return place_of(first + part, unit.tile); }, sums);
        }
        write_sums(TilePlace<Tile>(a, unit.tile), sums);
        return true;
    });
}

// Grid: [plan.shares.n_blocks].
__global__ void __launch_bounds__(Tile::kAllThreads, Tile::kBlocks)
    multiply_few_wgmma_kernel(const __grid_constant__ HalvesMaps maps, const __grid_constant__ FewWork a) {
    extern __shared__ __align__(1024) uint8_t shared[];
    divide_block<Tile>(
        shared, [&](const auto& stages) { multiply_units(a, stages, shared); },
        [&](const auto& stages) { fetch_units(maps, a, stages); });
}

}  // namespace

void multiply_few_wgmma(const FewPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                        float* sums, int* counts, Stream& stream) {
    count_blocks(products.matrices, FewPlan::kRows);
    const FewWork work{products, reinterpret_cast<float4*>(sums), counts, plan, n};
    static const bool raised = raise_shared_bytes_and_carveout(multiply_few_wgmma_kernel);
    static_cast<void>(raised);
    queue(multiply_few_wgmma_kernel, plan.shares.n_blocks, Tile::kAllThreads, Tile::kSharedBytes, stream,
          map_products<Tile>(products.matrices, n_cols, x, n), work);
}

}  // namespace lk::cuda
