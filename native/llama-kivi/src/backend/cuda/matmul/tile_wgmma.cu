// The tiled GEMM of tile.cu with wgmma. A warpgroup has all 128 rows of a tile and half of each step's elements: two
// panels of 64. Weights are dequantized to registers; tokens stay in shared memory, in the order of lanes (see
// ToLaneHalves). A part is 64 rows of 32 elements, of which a warp has 16 rows: it decodes the next part while the
// tensor cores multiply this one, also across panels, steps and tiles.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/wgmma.cuh"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/matmul/tile_stages.cuh"

namespace lk::cuda {

namespace {

using ChunkRows = uint4[2][2];  // a lane's weights of a chunk: of each 64 rows, rows g and g + 8 of the warp's 16

template <class Block>
struct ChunkCodes {
    typename Block::Decoder::Codes tiles[Block::kRowTiles];
};

template <int kChunk, class Block>
__device__ __forceinline__ ChunkCodes<Block> load_chunk(const typename Block::Decoder& decoder) {
    return {{decoder.template load<kChunk, 0>(), decoder.template load<kChunk, 1>()}};
}

template <int kChunk, class Block>
__device__ __forceinline__ void decode_chunk(const typename Block::Decoder& decoder, const ChunkCodes<Block>& codes,
                                             ChunkRows& rows) {
    decoder.template decode<kChunk, 0>(codes.tiles[0], rows[0]);
    decoder.template decode<kChunk, 1>(codes.tiles[1], rows[1]);
}

// Multiplies a chunk of a panel, asynchronously. Returns when the chunk before it is multiplied, so that its rows may
// be replaced.
template <int kChunk, class Block>
__device__ __forceinline__ void multiply_chunk(const ChunkRows& rows, const PanelOperand& tokens,
                                               typename Block::Accumulators& acc) {
    const auto multiply = [&](int tile) {
        const uint4& low = rows[tile][0];
        const uint4& high = rows[tile][1];
        multiply_group(acc[tile], low.x, high.x, low.y, high.y, tokens.from(32 * kChunk));
        multiply_group(acc[tile], low.z, high.z, low.w, high.w, tokens.from(32 * kChunk + 16));
    };
    warpgroup_begin();
    multiply(0);
    multiply(1);
    warpgroup_commit();
    warpgroup_wait<1>();
}

// Multiplies a panel. Its first chunk is in rows[0], the codes of its second in `codes`; ends with those of `next`
// there. between: called with a chunk's index while it is multiplied.
template <class Block, class Between>
__device__ __forceinline__ void multiply_panel(const typename Block::Decoder& decoder,
                                               const typename Block::Decoder& next, const PanelOperand& tokens,
                                               ChunkRows (&rows)[2], ChunkCodes<Block>& codes,
                                               typename Block::Accumulators& acc, const Between& between) {
    multiply_chunk<0, Block>(rows[0], tokens, acc);
    ChunkCodes<Block> following = load_chunk<0, Block>(next);
    between(std::integral_constant<int, 0>{});
    decode_chunk<1, Block>(decoder, codes, rows[1]);
    multiply_chunk<1, Block>(rows[1], tokens, acc);
    codes = load_chunk<1, Block>(next);
    between(std::integral_constant<int, 1>{});
    decode_chunk<0, Block>(next, following, rows[0]);
}

template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(TileWarps<kTiles, true>::kThreads, 1)
    multiply_tiles_wgmma_kernel(const __grid_constant__ TileWork a) {
    using Block = TileBlock<kType, kTiles, true>;
    constexpr int kStageBytes = Block::kStageBytes;
    static_assert(Block::kRowTiles == 2 && Block::kRowWarps == 4 && Block::kEach == 2 * kPanelHalves);
    static_assert(Block::kPanelBytes == kPanelRowBytes);
    static_assert(kStageBytes % 1024 == 0 && Block::S::kWeightBytes % 1024 == 0);
    extern __shared__ __align__(1024) uint8_t shared[];
    const TilePlan& plan = a.plan;
    const int begin = plan.shares.begin(blockIdx.x);
    const int end = plan.shares.begin(blockIdx.x + 1);
    const int warp = threadIdx.x / 32;
    const int sharer = __shfl_sync(kAllLanes, warp / Block::kRowWarps, 0);  // known to be the same in all lanes
    const Block own = Block::of_thread(a, begin, end, sharer);
    uint8_t* const shared_end = shared + plan.n_stages * kStageBytes;
    const auto next_stage = [&](uint8_t* stage) {
        return stage + kStageBytes == shared_end ? shared : stage + kStageBytes;
    };
    const auto tokens_of = [&](const uint8_t* stage, int panel) {
        constexpr int kPanel = Block::kColumns * kPanelRowBytes;
        return PanelOperand(stage + Block::S::kWeightBytes + (2 * sharer + panel) * kPanel);
    };
    Place place(plan, begin);
    Place fetched = place;
    TileSource source = own.source(fetched);
    for (int s = 0; s < plan.n_stages - 1; ++s) {
        own.prefetch(source, fetched, shared + s * kStageBytes, begin + s < end, s == 0);
        own.advance(fetched, source);
    }

    typename Block::Accumulators acc = {};
    typename Block::Decoder decoder;
    uint8_t* stage = shared;
    uint8_t* free_stage = shared_end - kStageBytes;
    ChunkRows rows[2];  // of the chunk that is multiplied, and of the next one
    wait_for_all_but<Block::kMostStages - 2>(plan.n_stages - 2);
    fence_operands();
    __syncthreads();
    auto before = own.bytes_before_rows(place);
    own.begin_unit(before, stage, decoder);
    decode_chunk<0, Block>(decoder, load_chunk<0, Block>(decoder), rows[0]);
    ChunkCodes<Block> codes = load_chunk<1, Block>(decoder);
    for (int unit = begin; unit < end;) {
        const Place tile = place;
        uint8_t* scratch = nullptr;
        // The sums are not touched inside, so that they stay with the tensor cores.
        do {
            typename Block::Decoder second;  // of the second panel
            own.template begin_unit<kPanelHalves>(before, stage, second);
            second.settle();
            multiply_panel<Block>(decoder, second, tokens_of(stage, 0), rows, codes, acc, [](auto) {});
            uint8_t* const following = next_stage(stage);
            place.advance(plan);
            wait_for_all_but<Block::kMostStages - 3>(plan.n_stages - 3);
            fence_operands();
            // The next stage is complete, and all warps are done with the previous one, which is filled from here on.
            // After the last unit, the next stage has old data, which no sum includes.
            __syncthreads();
            own.advance(place, before);
            own.begin_unit(before, following, decoder);
            const bool wanted = unit + plan.n_stages - 1 < end;
            const bool partial = own.is_partial(fetched);
            if (wanted && partial) {
                own.copy_partial_weights(fetched, free_stage);
                own.copy_partial_columns(fetched, free_stage);
            }
            const TileCopies copies = own.copies(source, free_stage, wanted && !partial);
            decoder.settle();
            multiply_panel<Block>(second, decoder, tokens_of(stage, 1), rows, codes, acc, [&](auto chunk) {
                own.template copy_weights<decltype(chunk)::value, 2>(copies);
                own.template copy_columns<decltype(chunk)::value, 2>(copies);
            });
            copy_commit();
            own.advance(fetched, source);
            scratch = free_stage = stage;
            stage = following;
            ++unit;
        } while (unit < end && place.step > 0);
        warpgroup_wait<0>();
        hold(acc[0]);
        hold(acc[1]);
        own.finish_tile(tile, unit - 1, scratch, acc);
    }
}

}  // namespace

void multiply_tiles_wgmma(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                          const TilePlan& plan, float* sums, int* counts, Stream& stream) {
    const TileWork work = tile_work(products, row_bytes, x, n, n_cols, plan, sums, counts);
    dispatch_tiles(type, n, [&](auto t, auto tiles) {
        constexpr auto* kKernel = multiply_tiles_wgmma_kernel<decltype(t)::value, decltype(tiles)::value>;
        static const bool raised = raise_shared_bytes(kKernel);
        static_cast<void>(raised);
        queue(kKernel, dim3(plan.shares.n_blocks), TileWarps<decltype(tiles)::value, true>::kThreads, plan.shared_bytes,
              stream, work);
    });
}

}  // namespace lk::cuda
