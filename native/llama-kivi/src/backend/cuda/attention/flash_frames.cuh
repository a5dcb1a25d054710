// Flash attention: sizes, query rows, output, and the frames that queries and output are in. A warp has kM tiles of 16
// query rows and kN tiles of 8 tokens. With g = lane / 4 and j = lane % 4, a lane has rows g and g + 8 of each row
// tile, and elements 2 j and 2 j + 1 of each 8 tokens or channels.
#pragma once

#include <new>

#include "backend/cuda/attention/flash_raw.cuh"

namespace lk::cuda {

namespace {

// What a query row of the block sees; see VisitRule.
struct RowBound {
    int keys;
    int values;
    int position;
};

// What the block reads, and the tiles ahead. In shared memory, because registers are scarce.
struct BlockPlan {
    static constexpr int kTiles = 32;  // twice as many as a warp plans at once
    Visits visits;
    Store k;
    Store v;
    int n_planned;
    Tile tiles[kTiles];  // tile i is at i % kTiles; one without tokens is the end

    __device__ const Tile& tile(int i) const { return tiles[i % kTiles]; }
};

// Offsets in shared memory, in bytes; the queries come first.
template <class S>
struct Sizes {
    static constexpr int kSide = kTile * S::kStride * 2;     // bytes of a tile's keys or values
    static constexpr int kKeys = S::kRows * S::kStride * 2;  // keys and values follow q
    static constexpr int kValues = kKeys + S::kBuffers * kSide;
    static constexpr int kRawKeys = kValues + S::kBuffers * kSide;  // codes of the next tile; see fetch_codes
    static constexpr int kRawValues = kRawKeys + (S::kHalves ? 0 : FlashCodeBytes<S::kD>::kKeys);
    static constexpr int kRefined =
        kRawValues + (S::kHalves ? 0 : FlashCodeBytes<S::kD>::kValues);       // uint16 [D]; see load_keys
    static constexpr int kSquares = kRefined + (S::kHalves ? 0 : 2 * S::kD);  // half [8 token groups, stride]
    static constexpr int kCorrections =
        kSquares + (S::kHalves ? 0 : 8 * S::kStride * 2);  // float [rows of warps, 8 token groups]
    static constexpr int kBounds = kCorrections + (S::kHalves ? 0 : S::kWarps * 16 * S::kM * 8 * 4);  // RowBound [rows]
    static constexpr int kShared = (kBounds + S::kRows * static_cast<int>(sizeof(RowBound)) + 7) / 8 * 8;  // BlockPlan
    static constexpr int kWork = kShared + static_cast<int>(sizeof(BlockPlan));
    static constexpr int kJoin = S::kSplit ? S::kWarps * 16 * (S::kD + 2) * 4 : 0;
    static constexpr int kBytes = kWork > kJoin ? kWork : kJoin;
};

// Indices of a thread.
struct Lane {
    int warp = threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    int g = lane / 4;
    int j = lane % 4;
};

// Reduces over the four lanes of a row.
__device__ float sum_of_row(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Stage "plan visits": the sides as the block sees them, the ranges of tokens, and the bounds of the block's rows.
template <int kRows>
__device__ __forceinline__ void plan_visits(const AttentionWork& a, const SegmentWork& seg, const QueryRows& rows,
                                            BlockPlan& plan, RowBound* bounds) {
    if (threadIdx.x == 0) {
        new (&plan.k) Store(seg.k, a.k, rows);
        new (&plan.v) Store(seg.v, a.v, rows);
        const int n_tokens = rows.position(rows.n - 1) + 1;
        const int first_seen = a.window > 0 ? max(0, rows.position(0) + 1 - a.window) : 0;
        plan.n_planned = 0;
        plan.visits.plan(plan.k.seen, plan.v.seen, have_one_bound(a, seg), seg.page_tokens, first_seen, n_tokens);
    }
    for (int r = threadIdx.x; r < kRows; r += blockDim.x) {
        const int row = min(r, rows.n - 1);
        bounds[r] = {paged_for(seg.k, a.k, rows, row), paged_for(seg.v, a.v, rows, row), rows.position(row)};
    }
    __syncthreads();
}

// Places [begin, end).
struct Places {
    int begin;
    int end;
};

// The places of this thread block's split.
__device__ __forceinline__ Places places_of_split(const AttentionWork& a, const Visits& visits) {
    const int all = visits.end[Visits::kRanges - 1];
    const int per_split = ((all + kTile - 1) / kTile + a.n_splits - 1) / a.n_splits * kTile;
    const int begin = min(all, static_cast<int>(blockIdx.y) * per_split);
    return {begin, min(all, begin + per_split)};
}

// Stage "plan tiles": plans the tiles from `place` on, called by a warp. A lane assumes that the tiles before its own
// are full; those after the first that is not are dropped. range: that of an earlier tile, or 0.
__device__ inline void plan_tiles(const AttentionWork& a, const SegmentWork& seg, int head, const Places& places,
                                  int range, int place, int lane, BlockPlan& plan) {
    constexpr int kMost = BlockPlan::kTiles / 2;
    const int own = place + min(lane, kMost) * kTile;
    const Tile tile =
        own < places.end ? tile_at(a, seg, head, plan.visits, plan.k, plan.v, range, own, places.end) : Tile{};
    const unsigned full = __ballot_sync(kAllLanes, lane < kMost && tile.n == kTile);
    const int n = min(__ffs(static_cast<int>(~full)), kMost);
    const int first = plan.n_planned;
    __syncwarp();
    if (lane < n) {
        plan.tiles[(first + lane) % BlockPlan::kTiles] = tile;
    }
    if (lane == 0) {
        plan.n_planned = first + n;
    }
    __syncwarp();
}

// Stage "load queries": rows scaled for exp2, rotated by `frame` positions to match keys with that frame, and, if
// `turned`, transformed by the Hadamard transform over `block` channels to match rotated keys. A warp loads rows
// [begin, end), kStep apart.
template <class S, int kStep>
__device__ __forceinline__ void load_queries(const AttentionWork& a, const QueryRows& rows, int begin, int end,
                                             int lane, int d, int block, int frame, bool turned,
                                             typename S::Queries q) {
    constexpr int kOwn = (S::kD + 31) / 32;
    const int pairs = a.n_rot / 2;
    for (int r = begin; r < end; r += kStep) {
        const float* const row = a.q + rows.output(min(r, rows.n - 1)) * d;
        float x[kOwn];
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
            const int c = lane + 32 * i;
            x[i] = c < d ? row[c] : 0.0f;
            if (frame != 0 && c < a.n_rot) {
                const int pair = a.halves ? c % pairs : c / 2;
                const bool second = a.halves ? c >= pairs : c % 2 == 1;
                const float other = row[a.halves ? (second ? c - pairs : c + pairs) : c ^ 1];
                double sine;
                double cosine;
                sincos(static_cast<double>(frame) * a.frequency[pair], &sine, &cosine);
                x[i] = x[i] * static_cast<float>(cosine) + (second ? other : -other) * static_cast<float>(sine);
            }
        }
        if (turned) {
#pragma unroll
            for (int half = 1; half < S::kD; half *= 2) {
                if (half >= block) {
                    continue;
                }
                if (half < 32) {
#pragma unroll
                    for (int i = 0; i < kOwn; ++i) {
                        const float other = __shfl_xor_sync(kAllLanes, x[i], half);
                        x[i] = lane & half ? other - x[i] : x[i] + other;
                    }
                } else {
#pragma unroll
                    for (int i = 0; i < kOwn; ++i) {
                        if ((i & (half / 32)) == 0 && i + half / 32 < kOwn) {
                            const float other = x[i + half / 32];
                            x[i + half / 32] = x[i] - other;
                            x[i] += other;
                        }
                    }
                }
            }
        }
        const float scale = a.scale * 1.44269504f * (turned ? rsqrtf(static_cast<float>(block)) : 1.0f);
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
            if (lane + 32 * i < S::kD) {
                *q.at(r, lane + 32 * i) = float_to_half_bits(x[i] * scale);
            }
        }
    }
}

// A lane's rows of the output and their softmax state.
template <class S>
struct Output {
    static constexpr int kM = S::kM;
    float out[kM][S::kD / 8][4];
    float base[kM][2];  // probabilities are 2^(score - base)
    float sum[kM][2];   // over the lane's tokens

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                base[m][e] = -INFINITY;
                sum[m][e] = 0;
            }
#pragma unroll
            for (int n = 0; n < S::kD / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    out[m][n][i] = 0;
                }
            }
        }
    }
};

// Stage "turn back": converts the output from the frame of coded values to that of exact values.
template <class S>
__device__ __forceinline__ void turn_back(const SideShape& shape, const Store& v, const Lane& at, int d, int block,
                                          Output<S>& o) {
    const bool centred = shape.format.scale_kind == ScaleKind::byte_token;
    const bool rotated = centred || shape.format.blocks();
    const float factor = v.factor(shape) * (rotated ? rsqrtf(static_cast<float>(block)) : 1.0f);
    const auto* mu = reinterpret_cast<const uint16_t*>(v.table + 4);
#pragma unroll
    for (int m = 0; m < o.kM; ++m) {
        auto& out = o.out[m];
        if (rotated) {
#pragma unroll
            for (int n = 0; n < S::kD / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; i += 2) {
                    const float x = out[n][i];
                    out[n][i] = x + out[n][i + 1];
                    out[n][i + 1] = x - out[n][i + 1];
                }
#pragma unroll
                for (int half = 1; half < 4; half *= 2) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float other = __shfl_xor_sync(kAllLanes, out[n][i], half);
                        out[n][i] = at.lane & half ? other - out[n][i] : out[n][i] + other;
                    }
                }
            }
#pragma unroll
            for (int half = 1; half < S::kD / 8; half *= 2) {
                if (8 * half >= block) {
                    continue;
                }
#pragma unroll
                for (int n = 0; n < S::kD / 8; ++n) {
                    if ((n & half) == 0 && n + half < S::kD / 8) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            const float other = out[n + half][i];
                            out[n + half][i] = out[n][i] - other;
                            out[n][i] += other;
                        }
                    }
                }
            }
        }
        const float mass[2] = {sum_of_row(o.sum[m][0]), sum_of_row(o.sum[m][1])};
#pragma unroll
        for (int n = 0; n < S::kD / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float centre = centred && 8 * n < d ? half_bits_to_float(mu[8 * n + 2 * at.j + i % 2]) : 0.0f;
                out[n][i] = out[n][i] * factor + mass[i / 2] * centre;
            }
        }
    }
}

}  // namespace

}  // namespace lk::cuda
