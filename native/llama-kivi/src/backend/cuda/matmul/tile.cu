// GEMMs of quantized weights with up to 64 tokens. A tile is 128 rows of weights; a step is 256 elements of each row.
// The steps of all tiles, tile after tile, are split evenly among one thread block per multiprocessor. A block
// prefetches the weights and tokens of coming steps into shared memory, across tile boundaries, while its warps
// dequantize to halves for tensor cores; each weight is read and decoded once. A warp dequantizes 16 rows while the
// tensor cores multiply the preceding 16, also across steps and tiles. When several blocks share a tile, the last to
// finish adds the partial sums, always in the same order.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/matmul/tile_stages.cuh"

namespace lk::cuda {

namespace {

// Keeps the compiler from moving the decoding of rows behind a branch.
__device__ __forceinline__ void settle(uint4 (&rows)[2]) {
#pragma unroll
    for (uint4& r : rows) {
        asm volatile("" : "+r"(r.x), "+r"(r.y), "+r"(r.z), "+r"(r.w));
    }
}

// Multiplies row tiles [kFrom, kTo) of chunk kChunk, each while the next one is decoded. The next tile of the last one
// is the first tile of chunk 1 - kChunk of `next`, whose tokens are in `next_stage`. between: called with each tile's
// index.
template <int kChunk, int kFrom, int kTo, class Block, class Between>
__device__ __forceinline__ void multiply_tiles_of_chunk(const Block& own, const typename Block::Decoder& decoder,
                                                        const typename Block::Decoder& next, const uint8_t* next_stage,
                                                        uint4 (&rows)[2][2], uint4 (&columns)[Block::kColumns / 8],
                                                        typename Block::Accumulators& acc, const Between& between) {
    if constexpr (kFrom < kTo) {
        constexpr bool kLast = kFrom + 1 == Block::kRowTiles;
        between(std::integral_constant<int, kFrom>{});
        if constexpr (kLast) {
            next.template decode<1 - kChunk, 0>(rows[0]);
        } else {
            decoder.template decode<kChunk, kFrom + 1>(rows[(kFrom + 1) % 2]);
        }
        own.template multiply_rows<kLast, 1 - kChunk>(rows[kFrom % 2], columns, acc[kFrom], next_stage);
        multiply_tiles_of_chunk<kChunk, kFrom + 1, kTo>(own, decoder, next, next_stage, rows, columns, acc, between);
    }
}

// kTiles: tiles of 8 tokens.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(TileWarps<kTiles>::kThreads, 1)
    multiply_tiles_kernel(const __grid_constant__ TileWork a) {
    using Block = TileBlock<kType, kTiles>;
    constexpr int kStageBytes = Block::kStageBytes;
    constexpr int kRowTiles = Block::kRowTiles;
    extern __shared__ __align__(128) uint8_t shared[];
    const TilePlan& plan = a.plan;
    const int begin = plan.shares.begin(blockIdx.x);
    const int end = plan.shares.begin(blockIdx.x + 1);
    const Block own = Block::of_thread(a, begin, end);
    uint8_t* const shared_end = shared + plan.n_stages * kStageBytes;
    const auto next_stage = [&](uint8_t* stage) {
        return stage + kStageBytes == shared_end ? shared : stage + kStageBytes;
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
    uint4 rows[2][2];  // of the tile that is multiplied, and of the next one
    uint4 columns[kTiles];
    wait_for_all_but<Block::kMostStages - 2>(plan.n_stages - 2);
    __syncthreads();
    auto before = own.bytes_before_rows(place);
    own.begin_unit(before, stage, decoder);
    decoder.template decode<0, 0>(rows[0]);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
        columns[t] = own.template load_columns<0>(stage, t);
    }
    const auto nothing = [](auto) {};
    for (int unit = begin; unit < end; ++unit) {
        multiply_tiles_of_chunk<0, 0, kRowTiles>(own, decoder, decoder, stage, rows, columns, acc, nothing);
        settle(rows[0]);
        uint8_t* const following = next_stage(stage);
        Place next = place;
        next.advance(plan);
        wait_for_all_but<Block::kMostStages - 3>(plan.n_stages - 3);
        // The next stage is complete, and all warps are done with the previous one, which is filled from here on. After
        // the last unit, the next stage has old data, which no sum includes.
        __syncthreads();
        typename Block::Decoder next_decoder;
        own.advance(next, before);
        own.begin_unit(before, following, next_decoder);
        const bool wanted = unit + plan.n_stages - 1 < end;
        const bool partial = own.is_partial(fetched);
        if (wanted && partial) {
            own.copy_partial_weights(fetched, free_stage);
            own.copy_partial_columns(fetched, free_stage);
        }
        const TileCopies copies = own.copies(source, free_stage, wanted && !partial);
        const auto copy_part = [&](auto tile) {
            own.template copy_weights<decltype(tile)::value, kRowTiles>(copies);
            own.template copy_columns<decltype(tile)::value, kRowTiles>(copies);
        };
        multiply_tiles_of_chunk<1, 0, kRowTiles / 2>(own, decoder, next_decoder, following, rows, columns, acc,
                                                     copy_part);
        next_decoder.settle();
        settle(rows[kRowTiles / 2 % 2]);
        multiply_tiles_of_chunk<1, kRowTiles / 2, kRowTiles>(own, decoder, next_decoder, following, rows, columns, acc,
                                                             copy_part);
        copy_commit();
        own.advance(fetched, source);
        if (unit + 1 == end || next.step == 0) {
            own.finish_tile(place, unit, stage, acc);
        }
        decoder = next_decoder;
        place = next;
        free_stage = stage;
        stage = following;
    }
}

}  // namespace

void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, Stream& stream) {
    const TileWork work = tile_work(products, row_bytes, x, n, n_cols, plan, sums, counts);
    dispatch_tiles(type, n, [&](auto t, auto tiles) {
        constexpr auto* kKernel = multiply_tiles_kernel<decltype(t)::value, decltype(tiles)::value>;
        static const bool raised = raise_shared_bytes(kKernel);
        static_cast<void>(raised);
        queue(kKernel, dim3(plan.shares.n_blocks), TileWarps<decltype(tiles)::value>::kThreads, plan.shared_bytes,
              stream, work);
    });
}

}  // namespace lk::cuda
