// Flash attention with wgmma, for many query rows. A block has three warpgroups: two multiply, with 128 query rows
// each, and share the tiles of 64 tokens that the third loads to shared memory. So a tile is dequantized once for 256
// query rows, while tensor cores multiply; and one warpgroup multiplies while the other computes probabilities.
//
// Keys and values have S::kStages buffers each, with two barriers per buffer: full and empty. Codes are copied one tile
// ahead. flash_kernel.cuh describes the order of tokens and the frame of the output.
#pragma once

#include "backend/cuda/attention/flash_stages.cuh"
#include "backend/cuda/attention/flash_wgmma_load.cuh"
#include "backend/cuda/attention/flash_wgmma_multiply.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// The same indices, but the compiler does not compute addresses from them ahead: registers are scarce.
__device__ Lane unknown(Lane at) {
    asm volatile("" : "+r"(at.lane), "+r"(at.g), "+r"(at.j));
    return at;
}

// Stage "load queries" without a frame and unturned: rows [begin, end), kStep apart, four at a time. The block is the
// only one of its multiprocessor, so nothing else hides the latency.
template <class S, int kStep>
__device__ __forceinline__ void load_plain_queries(const AttentionWork& a, const QueryRows& rows, int begin, int end,
                                                   int lane, typename S::Queries q) {
    constexpr int kAtOnce = 4;
    static_assert(S::kD == 4 * 32);
    const float scale = a.scale * 1.44269504f;
    for (int first = begin; first < end; first += kAtOnce * kStep) {
        float4 x[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int r = first + i * kStep;
            x[i] = reinterpret_cast<const float4*>(a.q + rows.output(min(r, rows.n - 1)) * S::kD)[lane];
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            *reinterpret_cast<uint2*>(q.at(first + i * kStep, 4 * lane)) =
                make_uint2(pack(x[i].x * scale, x[i].y * scale), pack(x[i].z * scale, x[i].w * scale));
        }
    }
}

// Stage "scores" of 64 query rows of a warpgroup, from row `first` on: issues q [rows] times keys [tokens].
template <class S>
__device__ __forceinline__ void issue_scores(typename S::Queries q, int first, typename S::Rows keys,
                                             float (&score)[S::kN][4]) {
    const uint64_t a = wgmma_operand(shared_address(q.at(first, 0)));
    const uint64_t b = wgmma_operand(shared_address(keys.first));
    warpgroup_begin();
#pragma unroll
    for (int step = 0; step < S::kD / 16; ++step) {
        const int panel = step / 4;
        const int pieces = step % 4 * 2;  // of 16 bytes
        wgmma_scores(score, a + (panel * (S::Queries::kPanel / 8) + pieces),
                     b + (panel * (S::Rows::kPanel / 8) + pieces), step > 0);
    }
    warpgroup_commit();
}

// Stage "values": issues probabilities, of 16 tokens per step, times values [tokens].
template <class S>
__device__ __forceinline__ void issue_values(const unsigned (&p)[kTile / 16][1][4], typename S::Rows values,
                                             Output<S>& o) {
    const uint64_t b = wgmma_operand(shared_address(values.first), S::Rows::kPanel * 2);
    warpgroup_begin();
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) {
        wgmma_values(o.out[0], p[step][0], b + step * (16 * 128 / 16));
    }
    warpgroup_commit();
}

// A multiplying warpgroup: attention of its query rows to all tiles.
template <class S>
__device__ __forceinline__ void attend_tiles(const AttentionWork& a, const SegmentWork& seg, const Lane& at,
                                             const WgmmaMemory<S>& memory) {
    constexpr int kD = S::kD;
    constexpr int kTiles = S::kRowTiles;
    Exchange<S>& exchange = memory.exchange();
    const BlockPlan& plan = exchange.plan;
    const typename S::Queries q = memory.queries();
    const RowBound* const bounds = memory.bounds();
    const int first_row = S::first_row(at.warp & ~3, 0);  // of the warpgroup
    Output<S> output[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
        output[m].clear();
    }
    int frame = INT_MIN;  // of the queries in q
    bool turned = false;
    bool in_codes = false;
    for (int index = 0;; ++index) {
        exchange.full_keys[S::stage(index)].wait(S::parity(index));
        const Tile& tile = plan.tile(index);
        const bool done = tile.n == 0;
        const bool next_in_codes = !S::kHalves && !done && tile.v.coded();
        if (done || in_codes != next_in_codes) {
            warpgroup_wait<0>();
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                hold(output[m].out[0]);
                if (!S::kHalves && in_codes) {
                    turn_back(a.v, plan.v, unknown(at), kD, kD, output[m]);
                }
            }
            in_codes = next_in_codes;
        }
        if (done) {
            break;
        }
        const bool turn = !S::kHalves && tile.k.coded() && a.k.format.blocks();
        if (tile.frame != frame || turn != turned) {
            frame = tile.frame;
            turned = turn;
            const int barrier = 2 + at.warp / 4;
            warpgroup_wait<0>();  // the sines below call a function, which must not meet registers of multiplications
            sync_threads_of<128>(barrier);  // the warpgroup no longer reads its queries
            const QueryRows rows = exchange.query_rows(a, seg);
            const int first = first_row + at.warp % 4;
            const int end = first_row + S::kRows / 2;
            if (frame == 0 && !turned) {
                load_plain_queries<S, 4>(a, rows, first, end, at.lane, q);
            } else {
                load_queries<S, 4>(a, rows, first, end, at.lane, kD, kD, frame, turned, q);
            }
            fence_operands();
            sync_threads_of<128>(barrier);
        }
        const bool correct = has_correction<S>(a, tile);
        const CorrectedTiles corrected(correct ? exchange.corrected[index % BlockPlan::kTiles] : 0);
        if (correct && corrected.first() == index) {
            const float times = exchange.k_factor * exchange.k_factor * (1 / (24 * 1.44269504f));  // scores in base 2
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                const int row = S::first_row(at.warp, m);
                multiply_squares<S>(q, row, memory.squares(index), times, unknown(at), memory.corrections(row));
            }
        }
        const bool one_group = correct && CorrectedTiles::groups_of(a.k.format, tile) == 1;
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float score[1][S::kN][4];
            issue_scores<S>(q, first_row + 64 * m, memory.keys(index), score[0]);
            warpgroup_wait<0>();
            hold(score[0]);
            if (at.lane == 0 && m == 0 && index > 0) {
                exchange.empty_values[S::stage(index - 1)].arrive();
            }
            if (m == kTiles - 1) {
                exchange.empty_keys[S::stage(index)].arrive();
            }
            const WarpTile<S> warp_tile(at, S::first_row(at.warp, m));
            float shift[1][2];
            warp_tile.hide_tokens(tile, bounds, a.window, score);
            warp_tile.correct(
                correct ? memory.corrections(S::first_row(at.warp, m)) : nullptr, one_group,
                [&](int in_tile) { return corrected.column(a.k.format, tile, index, in_tile); }, score, shift);
            hold(output[m].out[0]);
            warp_tile.update_softmax(score, shift, output[m]);
            float base[1][2];
            warp_tile.subtracted(shift, output[m], base);
            unsigned p[kTile / 16][1][4];
#pragma unroll
            for (int step = 0; step < kTile / 16; ++step) {
                warp_tile.take_probabilities(score, base, step, output[m], p[step]);
            }
            if (m == 0) {
                exchange.full_values[S::stage(index)].wait(S::parity(index));
            }
            issue_values<S>(p, memory.values(index), output[m]);
        }
    }
    const QueryRows rows = exchange.query_rows(a, seg);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
        store_rows(a, rows, at, S::first_row(at.warp, m), kD, output[m]);
    }
}

// Grid: [KV heads * groups of kRows query rows, splits, segments].
template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) attention_flash_wgmma_kernel(const AttentionWork a) {
    begin_beside_pages(a);
    extern __shared__ __align__(1024) char panels[];
    const WgmmaMemory<S> memory{panels};
    const SegmentWork& seg = a.segments[blockIdx.z];
    const int n_blocks = (seg.n_rows * (a.n_head / a.n_head_kv) + S::kRows - 1) / S::kRows;
    const int last_first = n_blocks - 1 - static_cast<int>(blockIdx.x) / a.n_head_kv;  // schedule the longest first
    if (last_first < 0) {
        end_beside_pages(a);
        return;
    }
    const QueryRows rows(a, seg, S::kRows, last_first);
    const Lane at{warp_index()};
    Exchange<S>& exchange = memory.exchange();
    BlockPlan& plan = exchange.plan;
    plan_visits<S::kRows>(a, seg, rows, plan, memory.bounds());
    const Places places = places_of_split(a, plan.visits);
    if (at.warp == 0) {
        exchange.rows[0] = rows.group;
        exchange.rows[1] = rows.kv_head;
        exchange.rows[2] = rows.first;
        exchange.rows[3] = rows.n;
        exchange.k_factor = plan.k.factor(a.k);
        // The loading warps read tiles one ahead of the current one.
        for (int i = 0; i < 2 && (i == 0 || plan.tile(i - 1).n > 0); i = plan.n_planned) {
            plan_tiles(a, seg, rows.head(), places, i == 0 ? 0 : plan.tile(i - 1).range,
                       i == 0 ? places.begin : plan.tile(i - 1).next, at.lane, plan);
        }
        exchange.planned[0] = plan.n_planned;
    }
    if (threadIdx.x == S::kThreads - 1) {
        for (int i = 0; i < S::kStages; ++i) {
            exchange.full_keys[i].init(S::kLoaders);
            exchange.full_values[i].init(S::kLoaders);
            exchange.empty_keys[i].init(32 * S::kWarps);  // each lane has read squares of scales
            exchange.empty_values[i].init(S::kWarps);
        }
    }
    // Rows without a token are multiplied by zeros, so they must not be NaN.
    for (int i = threadIdx.x; i < 2 * S::kStages * WgmmaMemory<S>::kSide / 16; i += S::kThreads) {
        reinterpret_cast<uint4*>(panels + WgmmaMemory<S>::kKeys)[i] = uint4{};
    }
    uint16_t* const refined_at = memory.refined_at();
    if constexpr (!S::kHalves) {
        for (int i = threadIdx.x; i < S::kD; i += S::kThreads) {
            refined_at[i] = kNotRefined;
        }
    }
    fence_operands();
    __syncthreads();
    if (!S::kHalves && a.k.format.refined_keys() && plan.k.seen.has_codes()) {
        for (int i = threadIdx.x; i < a.k.format.rows - S::kD; i += S::kThreads) {
            refined_at[reinterpret_cast<const uint16_t*>(plan.k.table + 4)[i]] = static_cast<uint16_t>(i);
        }
    }
    __syncthreads();
    if (at.warp >= S::kWarps) {
        warpgroup_give_registers<S::kLoadingRegisters>();
        load_tiles<S>(a, seg, rows.head(), places, memory);
    } else {
        warpgroup_take_registers<S::kMultiplyingRegisters>();
        attend_tiles<S>(a, seg, at, memory);
    }
    end_beside_pages(a);
}

}  // namespace

}  // namespace lk::cuda
