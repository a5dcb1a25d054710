// Flash attention with wgmma: the warpgroup that loads tiles.
#pragma once

#include "backend/cuda/attention/flash_loader.cuh"
#include "backend/cuda/attention/flash_wgmma_memory.cuh"
#include "backend/cuda/attention/flash_wgmma_multiply.cuh"

namespace lk::cuda {

namespace {

// The loading warpgroup: loads all tiles from places.begin on.
template <class S>
__device__ __forceinline__ void load_tiles(const AttentionWork& a, const SegmentWork& seg, int head,
                                           const Places& places, const WgmmaMemory<S>& memory) {
    constexpr int kBarrier = 1;
    Exchange<S>& exchange = memory.exchange();
    BlockPlan& plan = exchange.plan;
    const TileLoader<S> loader{a, exchange.k_factor, memory.refined_at()};
    const auto fetch = [&](const Tile& tile, int index) {
        if constexpr (!S::kHalves) {
            loader.fetch_keys(tile.n, tile.k, memory.raw_keys(index));
            loader.fetch_values(tile.n, tile.v, memory.raw_values(index));
        }
        copy_commit();
    };
    const auto fill = [](PhaseBarrier& barrier) {
        fence_operands();
        barrier.arrive();
    };
    fetch(plan.tile(0), 0);
    copy_wait<0>();
    CorrectedTiles corrected;
    for (int index = 0;; ++index) {
        sync_threads_of<S::kLoaders>(kBarrier);  // codes of the tile are complete; those before are no longer read
        const Tile& tile = plan.tile(index);
        const int known = exchange.planned[index % 2];
        exchange.empty_keys[S::stage(index)].wait(S::parity(index) ^ 1);
        if constexpr (S::kHalves) {
            loader.copy_rows(tile.n, tile.k, memory.keys(index));
            copy_commit();
            exchange.empty_values[S::stage(index)].wait(S::parity(index) ^ 1);
            loader.copy_rows(tile.n, tile.v, memory.values(index));
            copy_commit();
            static_assert(S::kStages > 2);  // the buffers above are waited for while the tile before is not full
            if (index > 0) {
                copy_wait<2>();
                fill(exchange.full_keys[S::stage(index - 1)]);
                fill(exchange.full_values[S::stage(index - 1)]);
            }
        }
        if (tile.n == 0) {
            fill(exchange.full_keys[S::stage(index)]);
            break;
        }
        if constexpr (!S::kHalves) {
            fetch(plan.tile(index + 1), index + 1);
            loader.copy_rows(tile.n, tile.k, memory.keys(index));
            copy_commit();
            if (has_correction<S>(a, tile)) {
                if (!corrected.contains(index)) {
                    corrected.square_scales<S>(a.k.format, plan, index, known, memory.squares(index));
                }
                exchange.corrected[index % BlockPlan::kTiles] = corrected.first();
            }
            loader.decode_keys(tile.n, tile.k, memory.raw_keys(index), memory.keys(index));
            if (tile.k.form == TileSide::Form::halves) {
                copy_wait<0>();
            }
            fill(exchange.full_keys[S::stage(index)]);
            exchange.empty_values[S::stage(index)].wait(S::parity(index) ^ 1);
            loader.copy_rows(tile.n, tile.v, memory.values(index));
            copy_commit();
            loader.decode_values(tile.n, tile.v, memory.raw_values(index), memory.values(index));
            copy_wait<0>();
            fill(exchange.full_values[S::stage(index)]);
        }
        if (threadIdx.x / 32 == S::kWarps) {
            const Tile& last = plan.tile(index + 1);
            if (known == index + 2 && last.n > 0) {
                plan_tiles(a, seg, head, places, last.range, last.next, threadIdx.x % 32, plan);
            }
            exchange.planned[(index + 1) % 2] = plan.n_planned;
        }
    }
}

}  // namespace

}  // namespace lk::cuda
