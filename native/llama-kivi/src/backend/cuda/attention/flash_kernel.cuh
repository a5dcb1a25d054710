// Flash attention: for many query rows, and for everything the kernels for few rows do not read (other head sizes,
// mixed cache types, pages with a frame). Tiles of 64 tokens are dequantized to halves in shared memory and multiplied
// on tensor cores (FlashAttention-2, Dao 2023: online softmax over tiles; probabilities stay in registers).
//
// kD     head size, or larger; the channels beyond the head size are zeros
// tall   a warp has its own query rows, and reads every token of a tile
// split  up to 16 query rows: all warps have the same rows, and each has a part of the tile's tokens
//
// Keys and values have one buffer each. Between the two barriers of a tile, keys are multiplied while its values are
// loaded; after them, values are multiplied while the next keys are copied. Codes are copied one tile ahead.
//
// Tokens whose values are codes come first. Their sum accumulates in the frame of the codes (rotated, centred, without
// the head's power of two) and is converted once, before the first exact value. plan/visits.h describes which
// tokens a row sees as codes.
#pragma once

#include "backend/cuda/attention/flash_loader.cuh"
#include "backend/cuda/attention/flash_stages.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// Grid: [KV heads * groups of kRows query rows, splits, segments].
template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kD <= 128 ? 2 : 1) attention_flash_kernel(const AttentionWork a) {
    begin_beside_pages(a);
    using Memory = Sizes<S>;
    constexpr int kD = S::kD;
    extern __shared__ __align__(16) char shared[];
    const SegmentWork& seg = a.segments[blockIdx.z];
    const int d = a.head_size;
    const int block = d & -d;  // of the Hadamard transform, at least 8
    const int n_blocks = (seg.n_rows * (a.n_head / a.n_head_kv) + S::kRows - 1) / S::kRows;
    const int last_first = n_blocks - 1 - static_cast<int>(blockIdx.x) / a.n_head_kv;  // schedule the longest first
    if (last_first < 0) {
        end_beside_pages(a);
        return;
    }
    const QueryRows rows(a, seg, S::kRows, last_first);
    const Lane at{};
    const typename S::Queries q{reinterpret_cast<uint16_t*>(shared)};
    uint16_t* const keys = reinterpret_cast<uint16_t*>(shared + Memory::kKeys);  // [64, stride]
    uint16_t* const values = reinterpret_cast<uint16_t*>(shared + Memory::kValues);
    uint8_t* const raw_keys = reinterpret_cast<uint8_t*>(shared + Memory::kRawKeys);
    uint8_t* const raw_values = reinterpret_cast<uint8_t*>(shared + Memory::kRawValues);
    uint16_t* const refined_at = reinterpret_cast<uint16_t*>(shared + Memory::kRefined);
    uint16_t* const squares = reinterpret_cast<uint16_t*>(shared + Memory::kSquares);
    float* const corrections = reinterpret_cast<float*>(shared + Memory::kCorrections) +
                               at.warp * 16 * S::kM * CorrectedTiles::kColumns;  // of the warp
    RowBound* const bounds = reinterpret_cast<RowBound*>(shared + Memory::kBounds);
    BlockPlan& plan = *reinterpret_cast<BlockPlan*>(shared + Memory::kShared);
    plan_visits<S::kRows>(a, seg, rows, plan, bounds);
    const Places places = places_of_split(a, plan.visits);
    const float k_factor = plan.k.factor(a.k);
    const float correction = k_factor * k_factor * (1 / (24 * 1.44269504f));  // for scores in base 2

    const auto plan_from = [&](int range, int place) {
        plan_tiles(a, seg, rows.head(), places, range, place, at.lane, plan);
    };
    if (at.warp == 0) {
        // The loop reads tiles one ahead of the current one.
        for (int i = 0; i < 2 && (i == 0 || plan.tile(i - 1).n > 0); i = plan.n_planned) {
            plan_from(i == 0 ? 0 : plan.tile(0).range, i == 0 ? places.begin : plan.tile(0).next);
        }
    }
    // Rows without a token are multiplied by zeros, so they must not be NaN.
    for (int i = threadIdx.x; i < 2 * S::kBuffers * Memory::kSide / 4; i += S::kThreads) {
        reinterpret_cast<unsigned*>(keys)[i] = 0;
    }
    if constexpr (!S::kHalves) {
        for (int i = threadIdx.x; i < CorrectedTiles::kColumns * S::kStride / 2; i += S::kThreads) {
            reinterpret_cast<unsigned*>(squares)[i] = 0;
        }
        for (int i = threadIdx.x; i < kD; i += S::kThreads) {
            refined_at[i] = kNotRefined;
        }
    }
    __syncthreads();
    if (!S::kHalves && a.k.format.refined_keys() && plan.k.seen.has_codes()) {
        for (int i = threadIdx.x; i < a.k.format.rows - d; i += S::kThreads) {
            refined_at[reinterpret_cast<const uint16_t*>(plan.k.table + 4)[i]] = static_cast<uint16_t>(i);
        }
    }

    const TileLoader<S> loader{a, k_factor, refined_at};
    Output<S> output;
    output.clear();
    int frame = INT_MIN;  // of the queries in q
    bool turned = false;
    const WarpTile<S> warp_tile(at);
    CorrectedTiles corrected;
    int planned = plan.n_planned;
    bool in_codes = !S::kHalves && plan.tile(0).n > 0 && plan.tile(0).v.coded();
    // With two buffers: copies a tile to its own.
    const auto copy_tile = [&](const Tile& t, int index) {
        const int offset = index % S::kBuffers * (Memory::kSide / 2);
        load_halves<S>(t.k.from, t.n, d, {keys + offset});
        load_halves<S>(t.v.from, t.n, d, {values + offset});
    };
    if constexpr (S::kHalves) {
        copy_tile(plan.tile(0), 0);
    } else {
        loader.fetch_keys(plan.tile(0).n, plan.tile(0).k, raw_keys);
        loader.fetch_values(plan.tile(0).n, plan.tile(0).v, raw_values);
        loader.copy_rows(plan.tile(0).n, plan.tile(0).k, {keys});
    }
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    for (int index = 0;; ++index) {
        const Tile& tile = plan.tile(index);
        const Tile& next = plan.tile(index + 1);
        const bool done = tile.n == 0;
        if (!S::kHalves && in_codes && (done || !tile.v.coded())) {
            in_codes = false;
            turn_back(a.v, plan.v, at, d, block, output);
        }
        if (done) {
            break;
        }
        const int offset = index % S::kBuffers * (Memory::kSide / 2);
        if constexpr (!S::kHalves) {
            loader.decode_keys(tile.n, tile.k, raw_keys, {keys});
        }
        const bool correct = !S::kHalves && a.k.format.score_correction && tile.k.coded();
        const bool correct_next = correct && !corrected.contains(index);
        if (correct_next) {
            corrected.square_scales<S>(a.k.format, plan, index, planned, squares);
        }
        copy_wait<0>();
        __syncthreads();  // keys are complete; the values before are no longer read
        if constexpr (S::kHalves) {
            copy_tile(next, index + 1);
        } else {
            planned = plan.n_planned;  // warps agree here
            loader.fetch_keys(next.n, next.k, raw_keys);
            loader.copy_rows(tile.n, tile.v, {values});
            loader.decode_values(tile.n, tile.v, raw_values, {values});
        }
        copy_commit();
        const bool turn = !S::kHalves && tile.k.coded() && a.k.format.blocks();
        if (tile.frame != frame || turn != turned) {
            frame = tile.frame;
            turned = turn;
            load_queries<S, S::kWarps>(a, rows, at.warp, S::kRows, at.lane, d, block, frame, turned, q);
            __syncthreads();
        }
        if (correct_next) {
            multiply_squares<S>(q, warp_tile.own_row, squares, correction, at, corrections);
        }
        typename WarpTile<S>::Scores score;
        warp_tile.multiply_keys(q.first, keys + offset, score);
        warp_tile.hide_tokens(tile, bounds, a.window, score);
        if constexpr (!S::kHalves) {
            copy_wait<0>();
            __syncthreads();  // values are complete; keys are no longer read
        }
        if (at.warp == 0 && next.n > 0 && plan.n_planned == index + 2) {
            plan_from(next.range, next.next);
        }
        if constexpr (!S::kHalves) {
            loader.copy_rows(next.n, next.k, {keys});
            loader.fetch_values(next.n, next.v, raw_values);
            copy_commit();
        }
        float shift[S::kM][2];
        const bool one_group = correct && CorrectedTiles::groups_of(a.k.format, tile) == 1;
        warp_tile.correct(
            correct ? corrections : nullptr, one_group,
            [&](int in_tile) { return corrected.column(a.k.format, tile, index, in_tile); }, score, shift);
        warp_tile.update_softmax(score, shift, output);
        warp_tile.add_values(score, shift, values + offset, output);
    }
    if constexpr (S::kSplit) {
        merge_warps(a, rows, at, output, reinterpret_cast<float*>(shared));
    } else {
        store_rows(a, rows, at, warp_tile.own_row, d, output);
    }
    end_beside_pages(a);
}

template <class S>
AttentionFunction function_of() {
    return {reinterpret_cast<const void*>(attention_flash_kernel<S>), Sizes<S>::kBytes, S::kThreads};
}

}  // namespace

}  // namespace lk::cuda
