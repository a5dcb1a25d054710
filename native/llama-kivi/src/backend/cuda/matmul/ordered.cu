// GEMMs of halves with one order of summing: an output element has the same bits for any number of tokens. A segment
// of a row, see RowSegments, is summed on tensor cores, 16 elements after the other; then the segments are added in
// order. ordered_few.cu does the same for few tokens.
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/ordered_parts.cuh"

namespace lk::cuda {

namespace {

// Grid: [plan.n_blocks].
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1) multiply_ordered_kernel(const __grid_constant__ OrderedWork a) {
    constexpr int kStages = Tile::kStages;
    constexpr int kGroups = 2 * Tile::kStepChunks;  // of 16 elements, in a step
    start_next();
    if (!a.products.constant) {
        wait_for_previous();
    }
    extern __shared__ __align__(128) uint8_t shared[];
    const OrderedUnit unit = a.plan.unit_of(blockIdx.x);
    const TilePlace<Tile> place(a, unit.tile);
    const TileCopies<Tile> copies(a, place);
    const int end_segment = unit.end_segment();
    const int end = a.plan.segments.begin_of(end_segment);
    int segment = unit.first_segment;
    int chunk = a.plan.segments.begin_of(segment);

    // Prefetch weights before the preceding kernels finish.
    for (int i = 0; i < kStages - 1; ++i) {
        const int ahead = chunk + i * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_rows(ahead, shared + i * Tile::kStageBytes);
        }
    }
    if (a.products.constant) {
        wait_for_previous();
    }
    for (int i = 0; i < kStages - 1; ++i) {
        const int ahead = chunk + i * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_columns(ahead, shared + i * Tile::kStageBytes);
        }
        copy_commit();
    }

    TileSums<Tile> sums = {};
    TileTotals<Tile> totals(shared + kStages * Tile::kStageBytes);
    // Stores the segment's sums in their slot.
    const auto store = [&] {
        float4* const to = sums_at<Tile>(a, unit.tile, a.plan.slot_of(segment));
        for_tiles<Tile>([&](int m, int t) {
            const float(&s)[4] = sums[m][t];
            to[(m * Tile::kN + t) * Tile::kThreads] = make_float4(s[0], s[1], s[2], s[3]);
        });
    };
    const auto clear = [&] {
        for_tiles<Tile>([&](int m, int t) {
#pragma unroll
            for (float& sum : sums[m][t]) {
                sum = 0;
            }
        });
    };
    // The first part of a tile adds its segments; the others store each segment, because the sum before it is missing.
    const auto finish_segment = [&] {
        if (unit.first_segment > 0) {
            store();
        } else if (segment == 0) {
            for_tiles<Tile>([&](int m, int t) { totals.start(m, t, sums[m][t]); });
        } else {
            for_tiles<Tile>([&](int m, int t) { totals.add(m, t, sums[m][t]); });
        }
        clear();
        ++segment;
    };

    const unsigned base = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const unsigned lane_rows = base + Tile::lane_rows(threadIdx.x);
    const unsigned lane_columns = base + Tile::lane_columns(threadIdx.x);
    TileOperands<Tile> operands[2];
    copy_wait<kStages - 2>();
    __syncthreads();
    operands[0].load(lane_rows, lane_columns, 0);
    int stage = 0;
    int free_stage = kStages - 1;
    const auto next = [](int s) { return s + 1 == kStages ? 0 : s + 1; };
    for (; chunk < end; chunk += Tile::kStepChunks) {
        const int ahead = chunk + (kStages - 1) * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_rows(ahead, shared + free_stage * Tile::kStageBytes);
            copies.fetch_columns(ahead, shared + free_stage * Tile::kStageBytes);
        }
        copy_commit();
#pragma unroll
        for (int k = 0; k < kGroups; ++k) {
            // Load the next operands before multiplying, also those of the next step.
            if (k + 1 == kGroups) {
                copy_wait<kStages - 2>();
                __syncthreads();  // all warps have loaded the last operands of the stage
                free_stage = stage;
                stage = next(stage);
            }
            const unsigned at = stage * Tile::kStageBytes;
            operands[(k + 1) % 2].load(lane_rows + at, lane_columns + at, (k + 1) % kGroups);
            const int of_chunk = chunk + k / 2;
            if (k < 2 || of_chunk < end) {
                operands[k % 2].multiply_all(sums);
                if (k % 2 == 1 && of_chunk + 1 < end && of_chunk + 1 == a.plan.segments.end_of(segment)) {
                    finish_segment();
                }
            }
        }
    }
    if (unit.first_segment > 0) {
        for (; segment < end_segment; ++segment) {  // the last segment with elements, and empty ones
            store();
            clear();
        }
        return;
    }
    if (segment > 0) {
        for_tiles<Tile>([&](int m, int t) { totals.add_to(m, t, sums[m][t]); });
    }
    segment = 0;
    if (unit.whole()) {
        for_tiles<Tile>([&](int m, int t) { place.write(m, t, sums[m][t]); });
    } else {
        store();
    }
}

// Adds the partial sums of split tiles in order. Grid: [kM kN, split tiles].
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) add_segments_kernel(const __grid_constant__ OrderedWork a) {
    start_next();
    wait_for_previous();
    const int tile = a.plan.n_whole + blockIdx.y;
    float total[4] = {};
    for (int slot = 0; slot < a.plan.slots(); ++slot) {
        const float4 sums = sums_at<Tile>(a, tile, slot)[blockIdx.x * Tile::kThreads];
        total[0] += sums.x;
        total[1] += sums.y;
        total[2] += sums.z;
        total[3] += sums.w;
    }
    TilePlace<Tile>(a, tile).write(blockIdx.x / Tile::kN, blockIdx.x % Tile::kN, total);
}

template <class Tile>
void launch(const OrderedWork& work, Stream& stream) {
    constexpr auto* kKernel = multiply_ordered_kernel<Tile>;
    static const bool raised =
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes) == cudaSuccess;
    static_cast<void>(raised);
    queue(kKernel, work.plan.n_blocks, Tile::kThreads, Tile::kSharedBytes, stream, work);
    if (work.plan.n_split() > 0) {
        queue(add_segments_kernel<Tile>, dim3(Tile::kM * Tile::kN, work.plan.n_split()), Tile::kThreads, 0, stream,
              work);
    }
}

}  // namespace

void multiply_ordered(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                      float* sums, Stream& stream) {
    count_blocks(products.matrices, OrderedPlan::kRows);
    const OrderedWork work{products, x, reinterpret_cast<float4*>(sums), nullptr, plan, n_cols, n};
    switch (plan.columns) {
    case OrderedTile32::kColumns:
        return launch<OrderedTile32>(work, stream);
    case OrderedTile64::kColumns:
        return launch<OrderedTile64>(work, stream);
    case OrderedTile128::kColumns:
        return launch<OrderedTile128>(work, stream);
    default:
        return launch<OrderedTile256>(work, stream);
    }
}

}  // namespace lk::cuda
