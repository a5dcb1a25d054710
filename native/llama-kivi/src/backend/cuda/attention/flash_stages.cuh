// Flash attention: the stages over a tile in shared memory and after the last tile; flash_kernel.cuh and
// flash_wgmma_kernel.cuh call them.
#pragma once

#include "backend/cuda/attention/flash_correction.cuh"
#include "backend/cuda/attention/join_parts.cuh"

namespace lk::cuda {

namespace {

// Maximum over the four lanes of a row, like sum_of_row.
__device__ float max_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// A warp's part of a tile: its query rows and its tokens.
template <class S>
struct WarpTile {
    static constexpr int kM = S::kM;
    static constexpr int kN = S::kN;
    using Scores = float[kM][kN][4];

    const Lane& at;
    int own_row;    // the warp's first row
    int own_token;  // the warp's first token

    __device__ __forceinline__ explicit WarpTile(const Lane& lane)
        : at(lane), own_row(S::kSplit ? 0 : lane.warp * 16 * kM), own_token(S::kSplit ? lane.warp * 8 * kN : 0) {}
    __device__ __forceinline__ WarpTile(const Lane& lane, int first_row) : at(lane), own_row(first_row), own_token(0) {}

    // Stage "scores": q [rows, stride] times keys [tokens, stride]. Loads the operands of a multiplication before the
    // multiplications ahead of it.
    __device__ __forceinline__ void multiply_keys(const uint16_t* q, const uint16_t* keys, Scores& score) const {
        constexpr int kSteps = S::kD / 16;
        constexpr int kPairs = kN / 2;
        const int lane = at.lane;
        const uint16_t* const q_rows = q + (own_row + lane % 16) * S::kStride + lane / 16 * 8;
        const uint16_t* const k_rows = keys + (own_token + lane / 16 * 8 + lane % 8) * S::kStride + lane / 8 % 2 * 8;
        unsigned x[2][kM][4];
        unsigned b[2][4];
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            load_matrices(x[0][m], q_rows + 16 * m * S::kStride);
        }
        load_matrices(b[0], k_rows);
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
        const auto multiply_pair = [&](int step, int pair) {
            const int i = step * kPairs + pair;
            const int n = 2 * pair;
            if (i + 1 < kSteps * kPairs) {
                const int next = (i + 1) / kPairs;
                if (next != step) {
#pragma unroll
                    for (int m = 0; m < kM; ++m) {
                        load_matrices(x[next % 2][m], q_rows + 16 * m * S::kStride + next * 16);
                    }
                }
                load_matrices(b[(i + 1) % 2], k_rows + (i + 1) % kPairs * 16 * S::kStride + next * 16);
            }
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                const unsigned(&p)[4] = x[step % 2][m];
                multiply(score[m][n], p[0], p[1], p[2], p[3], b[i % 2][0], b[i % 2][1]);
                multiply(score[m][n + 1], p[0], p[1], p[2], p[3], b[i % 2][2], b[i % 2][3]);
            }
        };
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                multiply_pair(step, pair);
            }
        }
    }

    // Stage "correct scores": shift: what update_softmax subtracts. Several token groups of a tile are subtracted here.
    // corrections: of the warp, or null. column_of: of a token in the tile.
    template <class ColumnOf>
    __device__ __forceinline__ void correct(const float* corrections, bool one_group, const ColumnOf& column_of,
                                            Scores& score, float (&shift)[kM][2]) const {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float* const row = corrections + (16 * m + 8 * e + at.g) * CorrectedTiles::kColumns;
                shift[m][e] = corrections != nullptr && one_group ? row[column_of(0)] : 0.0f;
                if (corrections == nullptr || one_group) {
                    continue;
                }
#pragma unroll
                for (int n = 0; n < kN; ++n) {
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        score[m][n][2 * e + i] -= row[column_of(own_token + 8 * n + 2 * at.j + i)];
                    }
                }
            }
        }
    }

    // Stage "mask": a row attends to tokens up to its position, within its window, and as codes or exact rows by its
    // bounds.
    __device__ __forceinline__ void hide_tokens(const Tile& tile, const RowBound* bounds, int window,
                                                Scores& score) const {
        const bool partly = (tile.rules & kPartly) != 0;
        if (partly || tile.n < kTile || tile.token + kTile - 1 > bounds[0].position || window > 0) {
            const int n_tokens = tile.n;
            const int first_token = tile.token;
            const unsigned rules = tile.rules;
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const RowBound bound = bounds[own_row + 16 * m + 8 * e + at.g];
                    RowBounds seen{window > 0 ? bound.position + 1 - window : 0, bound.position};
                    if (partly) {
                        seen.apply(rules, bound.keys, bound.values);
                    }
                    const int first = seen.first - first_token;  // in the tile
                    const int last = min(seen.last - first_token, n_tokens - 1);
#pragma unroll
                    for (int n = 0; n < kN; ++n) {
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int in_tile = own_token + 8 * n + 2 * at.j + i;
                            const bool visible = in_tile >= first && in_tile <= last;
                            score[m][n][2 * e + i] = visible ? score[m][n][2 * e + i] : -INFINITY;
                        }
                    }
                }
            }
        }
    }

    // Stage "softmax update": probabilities are relative to o.base, which follows the row's maximum only when that is
    // more than kSlack above it, so that most tiles leave the output alone.
    // shift: what score correction subtracts from the scores of the lane's rows.
    __device__ __forceinline__ void update_softmax(const Scores& score, const float (&shift)[kM][2],
                                                   Output<S>& o) const {
        constexpr float kSlack = 8;  // probabilities are at most 2^kSlack
        float top[kM][2];
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                top[m][e] = fmaxf(score[m][0][2 * e], score[m][0][2 * e + 1]);
            }
        }
#pragma unroll
        for (int n = 1; n < kN; ++n) {
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    top[m][e] = fmaxf(top[m][e], fmaxf(score[m][n][2 * e], score[m][n][2 * e + 1]));
                }
            }
        }
        bool grows = false;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                top[m][e] -= shift[m][e];
                grows |= top[m][e] > o.base[m][e] + kSlack;
            }
        }
        if (__any_sync(kAllLanes, grows)) {
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    top[m][e] = max_of_row(top[m][e]);
                }
            }
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float now = fmaxf(o.base[m][e], top[m][e]);
                    const float times = now == -INFINITY ? 1.0f : exp2_fast(o.base[m][e] - now);
                    o.base[m][e] = now;
                    o.sum[m][e] *= times;
#pragma unroll
                    for (int n = 0; n < S::kD / 8; ++n) {
                        o.out[m][n][2 * e] *= times;
                        o.out[m][n][2 * e + 1] *= times;
                    }
                }
            }
        }
    }

    // What is subtracted from the scores of the lane's rows before exp2.
    __device__ __forceinline__ void subtracted(const float (&shift)[kM][2], const Output<S>& o,
                                               float (&base)[kM][2]) const {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                base[m][e] = o.base[m][e] == -INFINITY ? 0.0f : o.base[m][e] + shift[m][e];
            }
        }
    }

    // Computes the probabilities of the 16 tokens of a step, as a left operand of tensor cores, and adds them to o.sum.
    __device__ __forceinline__ void take_probabilities(const Scores& score, const float (&base)[kM][2], int step,
                                                       Output<S>& o, unsigned (&p)[kM][4]) const {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&x)[4] = score[m][2 * step + i / 2];
                const float low = exp2_fast(x[i % 2 * 2] - base[m][i % 2]);
                const float high = exp2_fast(x[i % 2 * 2 + 1] - base[m][i % 2]);
                o.sum[m][i % 2] += low + high;
                p[m][i] = pack(low, high);
            }
        }
    }

    // Stage "values": probabilities of the scores times values [tokens, stride]. Loads operands and computes
    // probabilities before the multiplications ahead of them.
    __device__ __forceinline__ void add_values(Scores& score, const float (&shift)[kM][2], const uint16_t* values,
                                               Output<S>& o) const {
        constexpr int kPairs = S::kD / 16;  // of 8 channels
        constexpr int kSteps = kN / 2;      // of 16 tokens
        const uint16_t* const v_rows = values + (own_token + at.lane % 16) * S::kStride + at.lane / 16 * 8;
        float base[kM][2];
        subtracted(shift, o, base);
        unsigned b[2][4];
        unsigned p[2][kM][4];
        load_transposed(b[0], v_rows);
        take_probabilities(score, base, 0, o, p[0]);
        const auto multiply_pair = [&](int step, int c) {
            const int i = step * kPairs + c;
            if (i + 1 < kSteps * kPairs) {
                load_transposed(b[(i + 1) % 2], v_rows + (i + 1) / kPairs * 16 * S::kStride + (i + 1) % kPairs * 16);
            }
            if (c == 0 && step + 1 < kSteps) {
                take_probabilities(score, base, step + 1, o, p[(step + 1) % 2]);
            }
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                const unsigned(&x)[4] = p[step % 2][m];
                multiply(o.out[m][2 * c], x[0], x[1], x[2], x[3], b[i % 2][0], b[i % 2][1]);
                multiply(o.out[m][2 * c + 1], x[0], x[1], x[2], x[3], b[i % 2][2], b[i % 2][3]);
            }
        };
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
#pragma unroll
            for (int c = 0; c < kPairs; ++c) {
                multiply_pair(step, c);
            }
        }
    }
};

// Stage "merge": adds up the rows of warps that split the tokens.
template <class S>
__device__ __forceinline__ void merge_warps(const AttentionWork& a, const QueryRows& rows, const Lane& at,
                                            const Output<S>& o, float* sums) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        float* const to = warp_part<16, S::kD>(sums, at.warp, at.g + 8 * e);
        const float total = sum_of_row(o.sum[0][e]);
        if (at.j == 0) {
            to[0] = o.base[0][e] * 0.69314718f;
            to[1] = total;
        }
#pragma unroll
        for (int n = 0; n < S::kD / 8; ++n) {
            to[2 + 8 * n + 2 * at.j] = o.out[0][n][2 * e];
            to[2 + 8 * n + 2 * at.j + 1] = o.out[0][n][2 * e + 1];
        }
    }
    join_parts<16, S::kD, false>(a, a.n_page_splits + blockIdx.y, rows, nullptr, sums);
}

// Stage "store": each warp writes its rows, from row `first` on, to a.partial, or to a.out if there is one split.
template <class S>
__device__ __forceinline__ void store_rows(const AttentionWork& a, const QueryRows& rows, const Lane& at, int first,
                                           int d, const Output<S>& o) {
#pragma unroll
    for (int m = 0; m < o.kM; ++m) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int r = first + 16 * m + 8 * e + at.g;
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
                    to[0] = o.base[m][e] * 0.69314718f;
                    to[1] = total;
                }
                to += 2;
                times = 1;
            }
#pragma unroll
            for (int n = 0; n < S::kD / 8; ++n) {
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
