// Flash attention: the stages over a tile in shared memory and after the last tile; flash.cu calls them.
#pragma once

#include "backend/cuda/attention/flash_frames.cuh"
#include "backend/cuda/device/mma.cuh"

namespace lk::cuda {

namespace {

__device__ void load_matrices(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

__device__ void load_transposed(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

// Maximum over the four lanes of a row, like sum_of_row.
__device__ float max_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// A warp's part of a tile: its query rows and its tokens.
template <int kD, bool kSplit>
struct WarpTile {
    using S = Sizes<kD, kSplit>;
    static constexpr int kM = S::kM;
    static constexpr int kN = S::kN;
    using Scores = float[kM][kN][4];

    const Lane& at;
    int own_row;    // the warp's first row
    int own_token;  // the warp's first token

    __device__ __forceinline__ explicit WarpTile(const Lane& lane)
        : at(lane), own_row(kSplit ? 0 : lane.warp * 16 * kM), own_token(kSplit ? lane.warp * 8 * kN : 0) {}

    // Stage "correct scores": what score correction (Recipe::score_correction) subtracts from the scores of the warp's
    // rows, per token group of the tile. Runs before the scores exist, because registers are scarce.
    // squares: half [4, stride], squared scales of the token groups. times: 1/24 in the units of the scores.
    // to: float [rows of all warps, 4].
    __device__ __forceinline__ void correct(const uint16_t* q, const uint16_t* squares, float times, float* to) const {
        const int lane = at.lane;
        // Columns of b are token groups.
        const uint16_t* const column = squares + at.g % kTileGroups * S::kStride + 2 * at.j;
        const auto square = [](unsigned x) { return bits(__hmul2(halves(x), halves(x))); };
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            float sum[4] = {0, 0, 0, 0};  // of rows g and g + 8, token groups 2 j and 2 j + 1
#pragma unroll
            for (int step = 0; step < kD / 16; ++step) {
                unsigned x[4];
                load_matrices(x, q + (own_row + 16 * m + lane % 16) * S::kStride + step * 16 + lane / 16 * 8);
                multiply(sum, square(x[0]), square(x[1]), square(x[2]), square(x[3]),
                         *reinterpret_cast<const unsigned*>(column + step * 16),
                         *reinterpret_cast<const unsigned*>(column + step * 16 + 8));
            }
            if (at.j < kTileGroups / 2) {
                float* const row = to + ((at.warp * kM + m) * 16 + at.g) * kTileGroups + 2 * at.j;
                row[0] = -times * sum[0];
                row[1] = -times * sum[1];
                row[8 * kTileGroups] = -times * sum[2];
                row[8 * kTileGroups + 1] = -times * sum[3];
            }
        }
        __syncwarp();
    }

    // The scores before the product: 0, or the corrections.
    __device__ __forceinline__ void start_scores(const float* corrections, int k_token, int group,
                                                 Scores& score) const {
        if (corrections == nullptr) {
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int n = 0; n < kN; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        score[m][n][i] = 0;
                    }
                }
            }
            return;
        }
        const bool one = group >= kTile;                    // the tile is in one token group
        const int start = one ? 0 : k_token & (group - 1);  // of the tile in its first token group
        const int shift = one ? 31 : 31 - __clz(group);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float* const row = corrections + ((at.warp * kM + m) * 16 + i / 2 * 8 + at.g) * kTileGroups;
#pragma unroll
                for (int n = 0; n < kN; ++n) {
                    score[m][n][i] = row[(start + own_token + 8 * n + 2 * at.j + i % 2) >> shift];
                }
            }
        }
    }

    // Stage "scores": q [rows, stride] times keys [tokens, stride], plus the corrections of correct(), if there are
    // any.
    __device__ __forceinline__ void multiply_keys(const uint16_t* q, const uint16_t* keys, const float* corrections,
                                                  int k_token, int group, Scores& score) const {
        const int lane = at.lane;
        start_scores(corrections, k_token, group, score);
#pragma unroll
        for (int step = 0; step < kD / 16; ++step) {
            unsigned q_part[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                load_matrices(q_part[m], q + (own_row + 16 * m + lane % 16) * S::kStride + step * 16 + lane / 16 * 8);
            }
#pragma unroll
            for (int n = 0; n < kN; n += 2) {
                unsigned b[4];
                load_matrices(b, keys + (own_token + 8 * n + lane / 16 * 8 + lane % 8) * S::kStride + step * 16 +
                                     lane / 8 % 2 * 8);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    multiply(score[m][n], q_part[m][0], q_part[m][1], q_part[m][2], q_part[m][3], b[0], b[1]);
                    multiply(score[m][n + 1], q_part[m][0], q_part[m][1], q_part[m][2], q_part[m][3], b[2], b[3]);
                }
            }
        }
    }

    // Stage "mask": a row attends to tokens up to its position, within its window, and as codes or exact rows by its
    // bounds [keys and values, rows].
    __device__ __forceinline__ void hide_tokens(const QueryRows& rows, const Tile& tile, const int* bounds,
                                                const AttentionWork& a, Scores& score) const {
        const bool partly = (tile.rules & kPartly) != 0;
        if (partly || tile.n < kTile || tile.token + kTile - 1 > rows.position(0) || a.window > 0) {
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int row = min(own_row + 16 * m + 8 * e + at.g, rows.n - 1);
                    const int position = rows.position(row);
                    RowBounds seen{a.window > 0 ? position + 1 - a.window : 0, position};
                    if (partly) {
                        seen.apply(tile.rules, bounds[row], bounds[S::kRows + row]);
                    }
#pragma unroll
                    for (int n = 0; n < kN; ++n) {
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int in_tile = own_token + 8 * n + 2 * at.j + i;
                            const int token = tile.token + in_tile;
                            const bool visible = in_tile < tile.n && token >= seen.first && token <= seen.last;
                            score[m][n][2 * e + i] = visible ? score[m][n][2 * e + i] : -INFINITY;
                        }
                    }
                }
            }
        }
    }

    // Stage "softmax update": turns scores into unnormalized probabilities.
    __device__ __forceinline__ void update_softmax(Scores& score, Output<kD, kSplit>& o) const {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float top = -INFINITY;
#pragma unroll
                for (int n = 0; n < kN; ++n) {
                    top = fmaxf(top, fmaxf(score[m][n][2 * e], score[m][n][2 * e + 1]));
                }
                const float now = fmaxf(o.largest[m][e], max_of_row(top));
                const float base = now == -INFINITY ? 0.0f : now;
                const float correction = exp2_fast(o.largest[m][e] - base);
                o.largest[m][e] = now;
                o.sum[m][e] *= correction;
#pragma unroll
                for (int n = 0; n < kN; ++n) {
#pragma unroll
                    for (int i = 2 * e; i < 2 * e + 2; ++i) {
                        score[m][n][i] = exp2_fast(score[m][n][i] - base);
                        o.sum[m][e] += score[m][n][i];
                    }
                }
#pragma unroll
                for (int n = 0; n < kD / 8; ++n) {
                    o.out[m][n][2 * e] *= correction;
                    o.out[m][n][2 * e + 1] *= correction;
                }
            }
        }
    }

    // Stage "values": probabilities times values [tokens, stride].
    __device__ __forceinline__ void add_values(const Scores& score, const uint16_t* values,
                                               Output<kD, kSplit>& o) const {
        const int lane = at.lane;
#pragma unroll
        for (int n = 0; n < kN; n += 2) {
            unsigned p[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                p[m][0] = pack(score[m][n][0], score[m][n][1]);
                p[m][1] = pack(score[m][n][2], score[m][n][3]);
                p[m][2] = pack(score[m][n + 1][0], score[m][n + 1][1]);
                p[m][3] = pack(score[m][n + 1][2], score[m][n + 1][3]);
            }
#pragma unroll
            for (int c = 0; c < kD / 8; c += 2) {
                unsigned b[4];
                load_transposed(b, values + (own_token + 8 * n + lane % 16) * S::kStride + 8 * c + lane / 16 * 8);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    multiply(o.out[m][c], p[m][0], p[m][1], p[m][2], p[m][3], b[0], b[1]);
                    multiply(o.out[m][c + 1], p[m][0], p[m][1], p[m][2], p[m][3], b[2], b[3]);
                }
            }
        }
    }
};

// Stage "merge": adds up the rows of warps that split the tokens.
template <int kD>
__device__ __forceinline__ void merge_warps(const AttentionWork& a, const QueryRows& rows, const Lane& at,
                                            const Output<kD, true>& o, float* sums) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        float* const to = warp_part<16, kD>(sums, at.warp, at.g + 8 * e);
        const float total = sum_of_row(o.sum[0][e]);
        if (at.j == 0) {
            to[0] = o.largest[0][e] * 0.69314718f;
            to[1] = total;
        }
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
            to[2 + 8 * n + 2 * at.j] = o.out[0][n][2 * e];
            to[2 + 8 * n + 2 * at.j + 1] = o.out[0][n][2 * e + 1];
        }
    }
    join_parts<16, kD, false>(a, a.n_page_splits + blockIdx.y, rows, nullptr, sums);
}

// Stage "store": each warp writes its rows to a.partial, or to a.out if there is one split.
template <int kD>
__device__ __forceinline__ void store_rows(const AttentionWork& a, const QueryRows& rows, const Lane& at, int d,
                                           const Output<kD, false>& o) {
#pragma unroll
    for (int m = 0; m < o.kM; ++m) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int r = at.warp * 16 * o.kM + 16 * m + 8 * e + at.g;
            const float total = sum_of_row(o.sum[m][e]);
            if (r >= rows.n) {
                continue;
            }
            float* to = a.out + rows.output(r) * d;
            float times = 1 / total;
            if (a.n_page_splits + a.n_splits > 1) {
                to = a.partial +
                     ((a.n_page_splits + blockIdx.y) * static_cast<size_t>(a.n_rows) * a.n_head + rows.output(r)) *
                         (d + 2);
                if (at.j == 0) {
                    to[0] = o.largest[m][e] * 0.69314718f;
                    to[1] = total;
                }
                to += 2;
                times = 1;
            }
#pragma unroll
            for (int n = 0; n < kD / 8; ++n) {
                if (8 * n < d) {
                    *reinterpret_cast<float2*>(to + 8 * n + 2 * at.j) =
                        make_float2(o.out[m][n][2 * e] * times, o.out[m][n][2 * e + 1] * times);
                }
            }
        }
    }
}

}  // namespace

}  // namespace lk::cuda
