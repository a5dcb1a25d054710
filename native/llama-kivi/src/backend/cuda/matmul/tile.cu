// GEMMs of quantized weights with up to 64 tokens. A tile is 96 rows of weights; a step is 256 elements of each row.
// The steps of all tiles, tile after tile, are split evenly among one thread block per multiprocessor. A block
// prefetches the weights and tokens of coming steps into shared memory, across tile boundaries, while its warps
// dequantize to halves for tensor cores; each weight is read and decoded once. When several blocks share a tile, the
// last to finish adds the partial sums, always in the same order.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/matmul/tile_stages.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

// kTiles: tiles of 8 tokens.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(kThreads, 1) multiply_tiles_kernel(const __grid_constant__ TileWork a) {
    using Block = TileBlock<kType, kTiles>;
    constexpr int kStageBytes = Block::kStageBytes;
    extern __shared__ __align__(128) uint8_t shared[];
    const FewProducts& products = a.products;
    const TilePlan& plan = a.plan;
    const int begin = plan.shares.begin(blockIdx.x);
    const int end = plan.shares.begin(blockIdx.x + 1);
    const int warp = threadIdx.x / 32;
    const int sharer = warp / kRowWarps;
    const int g = threadIdx.x % 32 / 4;
    const int j = threadIdx.x % 4;
    const Block own{a,      begin, end, a.n_cols % kStepElements != 0, warp % kRowWarps * kWarpRows,
                    sharer, g,     j,   sharer * Block::kEach + 8 * j};
    uint8_t* const shared_end = shared + plan.n_stages * kStageBytes;
    const auto next_stage = [&](uint8_t* stage) {
        return stage + kStageBytes == shared_end ? shared : stage + kStageBytes;
    };
    // Weights are constant, so their prefetch need not wait for the preceding kernel.
    Place place(products, plan, begin);
    Place fetched = place;
    for (int s = 0; s < min(end - begin, plan.n_stages - 1); ++s) {
        own.fetch_weights(fetched, shared + s * kStageBytes);
        fetched.advance(products, plan);
    }
    after_previous();
    fetched = place;
    for (int s = 0; s < plan.n_stages - 1; ++s) {
        if (begin + s < end) {
            own.fetch_columns(fetched, shared + s * kStageBytes);
            fetched.advance(products, plan);
        }
        copy_commit();
    }

    // Decodes a chunk while the previous one is multiplied.
    typename Block::Accumulators acc = {};
    RowDecoder<kType> decoder;
    uint8_t* stage = shared;
    uint8_t* free_stage = shared_end - kStageBytes;
    uint4 even[4];
    uint4 odd[4];
    if (begin < end) {
        wait_for_all_but(plan.n_stages - 2);
        __syncthreads();
        own.begin_unit(place, stage, decoder);
        decoder.template decode<0>(even);
    }
    for (int unit = begin; unit < end; ++unit) {
        decoder.template decode<1>(odd);
        own.multiply_chunk(stage, 0, even, acc);
        Place next = place;
        next.advance(products, plan);
        if (unit + 1 < end) {
            wait_for_all_but(plan.n_stages - 3);
            __syncthreads();  // all warps are done with the previous stage
            if (unit + plan.n_stages - 1 < end) {
                own.fetch_weights(fetched, free_stage);
                own.fetch_columns(fetched, free_stage);
                fetched.advance(products, plan);
            }
            copy_commit();
            own.begin_unit(next, next_stage(stage), decoder);
            decoder.template decode<0>(even);
        }
        own.multiply_chunk(stage, 1, odd, acc);
        if (unit + 1 == end || next.step == 0) {
            own.finish_tile(place, unit, stage, acc);
        }
        place = next;
        free_stage = stage;
        stage = next_stage(stage);
    }
}

}  // namespace

void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, Stream& stream) {
    count_blocks(products, TilePlan::kRows);
    const TileWork work{products, row_bytes, x, sums, counts, plan, n_cols, n};
    dispatch("matmul in tiles", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (is_float(kType)) {
            fail_weights("matmul in tiles", type);
        } else {
            const auto call = [&](auto tiles) {
                constexpr auto* kKernel = multiply_tiles_kernel<kType, decltype(tiles)::value>;
                static const bool raised = raise_shared_bytes(kKernel);
                static_cast<void>(raised);
                queue(kKernel, dim3(plan.shares.n_blocks), kThreads, plan.shared_bytes, stream, work);
            };
            switch (column_tiles(n)) {
            case 1:
                return call(std::integral_constant<int, 1>{});
            case 2:
                return call(std::integral_constant<int, 2>{});
            case 4:
                return call(std::integral_constant<int, 4>{});
            default:
                return call(std::integral_constant<int, 8>{});
            }
        }
    });
}

}  // namespace lk::cuda
