// Attention over pages of codes on tensor cores: queries and scores.
#pragma once

#include "backend/cuda/attention/pages_stages.cuh"

namespace lk::cuda {

namespace {

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::load_queries(
    const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table, const uint16_t* refined, char* shared,
    char* queries, Queries& q, float (&factor)[2]) const {
    // Maximum |q|.
    constexpr float kTop = kPaper ? 2.0f : 1024.0f;
    uint8_t* const wide = reinterpret_cast<uint8_t*>(shared);  // [D]: 4 for refined channels
    for (int i = threadIdx.x; i < kD; i += blockDim.x) {
        wide[i] = 1;
    }
    __syncthreads();
    if (kRotated && threadIdx.x < kRefined) {
        wide[refined[threadIdx.x]] = 4;
    }
    __syncthreads();
    const int own_row = g % kRows;
    const float* const row = a.q + rows.output(min(own_row, rows.n - 1)) * kD;
    const auto value = [&](int step, int i) {
        const int code_row = 16 * step + 4 * j + i;
        return code_row < kD              ? row[code_row] * wide[code_row]
               : code_row < kD + kRefined ? row[refined[code_row - kD]]
                                          : 0.0f;
    };
    float top = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            top = fmaxf(top, fabsf(value(step, i)));
        }
    }
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float lift = own_row < rows.n ? finite_quotient(kTop, top) : 0.0f;
    uint4* const to = reinterpret_cast<uint4*>(queries) + lane;
#pragma unroll
    for (int step = 0; step < kSteps; step += 2) {
        if (step / 2 % kJoinWarps == static_cast<int>(threadIdx.x / 32)) {
            const auto packed = [&](int s, int i) { return pack(value(s, i) * lift, value(s, i + 2) * lift); };
            to[step / 2 * 32] = {packed(step, 0), packed(step, 1), packed(step + 1, 0), packed(step + 1, 1)};
        }
    }
    const float k_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    // Never 0: the masked score -INFINITY * 0 would be NaN.
    const float back = lift > 0 ? fmaxf(top / kTop * a.scale * k_factor * 1.44269504f, FLT_MIN) : 1.0f;
    factor[0] = __shfl_sync(kAllLanes, back, 8 * j);
    factor[1] = __shfl_sync(kAllLanes, back, 8 * j + 4);
    __syncthreads();
    q.shared = to;
    if (!kQueriesShared) {
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
            q.own[i] = to[i * 32];
        }
        __syncthreads();  // pages may be copied there
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::multiply_keys(const Queries& q,
                                                                                              const OwnRefined& refined,
                                                                                              const float (&factor)[2],
                                                                                              Scores& score) const {
    if (fk.group >= 64) {
        gather_refined<2>(refined);
#pragma unroll
        for (int tile = 0; tile < kOwnTiles; tile += 2) {
            multiply_tiles<2>(q, tile, factor, score);
        }
    } else {
        gather_refined<4>(refined);
#pragma unroll
        for (int tile = 0; tile < kOwnTiles; ++tile) {
            multiply_tiles<1>(q, tile, factor, score);
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
template <int kAtOnce>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::multiply_tiles(const Queries& q,
                                                                                               int first,
                                                                                               const float (&factor)[2],
                                                                                               Scores& score) const {
    const unsigned* const codes = reinterpret_cast<const unsigned*>(own) + (first * kQuads + j) * kQuadWords + token;
    constexpr int kSides = kTiles / kOwnTiles;
    const int token_group = (first + g / kRows * kOwnTiles) * fk.scale_groups / kTiles;
    float bias[4] = {};
    float dot[kSides][kAtOnce][2][4] = {};
    const auto multiply_step = [&](unsigned q0, unsigned q1, int step, bool fine) {
        unsigned weights[2] = {q0, q1};
        fold_key_scales(step, fine, token_group, weights, bias);
#pragma unroll
        for (int side = 0; side < kSides; ++side) {
#pragma unroll
            for (int tile = 0; tile < kAtOnce; ++tile) {
                const unsigned* const word = codes + ((side * kOwnTiles + tile) * kQuads + step * 4) * kQuadWords;
                const unsigned w0 = word[0];
                const unsigned w1 = kBits == 2 ? w0 : word[8];
                multiply_bytes(dot[side][tile], w0, w1, weights);
            }
        }
    };
    const auto multiply_pair = [&](int step, bool fine) {
        const uint4 pair = q.pair(step / 2);
        multiply_step(pair.x, pair.y, step, fine);
        if (step + 1 < kSteps) {
            multiply_step(pair.z, pair.w, step + 1, fine);
        }
    };
    static_assert(kBaseSteps % 2 == 0);
    // With 2 bits not unrolled completely: that takes more registers than a thread has.
    constexpr int kUnrolled = !kQueriesShared ? kBaseSteps : kD > 64 ? 2 : 1;
#pragma unroll kUnrolled
    for (int step = 0; step < kBaseSteps; step += 2) {
        multiply_pair(step, false);
    }
#pragma unroll
    for (int step = kBaseSteps; step < kSteps; step += 2) {
        multiply_pair(step, true);
    }
    if (kPaired) {
        // Rows g of the product have the scales of lanes g; columns 2 j, of the first or the last 64 tokens.
        const int from = (lane & 15) | (lane & 2) << 3;
        bias[0] = __shfl_sync(kAllLanes, bias[0], from);
        bias[1] = __shfl_sync(kAllLanes, bias[1], from);
    }
    // Zero points count quarter steps.
    float more[2] = {bias[0] * (kPaper ? 1.0f : 0.25f), bias[1] * (kPaper ? 1.0f : 0.25f)};
    if (!kPaper) {
        // Rows 2 j and 2 j + 1 of the diagonal, in the scores' units: times 1/24, divided by the factor that converts
        // scores to base 2, times its square without the logarithm.
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            more[e] += __shfl_sync(kAllLanes, bias[2 + e], (2 * j + e) * 4 + j) * factor[e] * (1 / (24 * 1.44269504f));
        }
    }
#pragma unroll
    for (int tile = 0; tile < kAtOnce; ++tile) {
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            // Bits of a byte below the token's code. The product with these is that of an earlier token.
            const int place = t / 2 * 4 + (kBits == 2 ? t % 2 * 2 : 0);
            const int below = kBits == 2 ? t - 1 : t - 2;
            const float unit = power2(24 - place);
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const auto product = [&](int i) {
                    const float x = dot[0][tile][i / 2][i % 2 * 2 + e];
                    return kPaired && j >= 2 ? dot[kSides - 1][tile][i / 2][i % 2 * 2 + e] : x;
                };
                const float own_product = below < 0 ? product(t) : product(t) - product(below);
                score[first + tile][t][e] = own_product * unit + more[e];
            }
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::multiply_bytes(
    float (&dot)[2][4], unsigned w0, unsigned w1, const unsigned (&weights)[2]) {
    // Bytes 0 and 2 of a word, and 1 and 3, as halves.
    constexpr unsigned kEven = 0x4240;
    constexpr unsigned kOdd = 0x4341;
    const unsigned odd0 = __byte_perm(w0, 0, kOdd);
    const unsigned odd1 = kBits == 2 ? odd0 : __byte_perm(w1, 0, kOdd);
    constexpr unsigned kLow = kMask;
    if (kBits == 2) {
        constexpr unsigned kTwo = kMask * 5;
        constexpr unsigned kThree = kMask * 21;
        multiply(dot[0], w0 & kLow, w0 & kTwo, odd0 & kLow, odd0 & kTwo, weights[0], weights[1]);
        multiply(dot[1], w0 & kThree, __byte_perm(w0, 0, kEven), odd0 & kThree, odd0, weights[0], weights[1]);
    } else {
        multiply(dot[0], w0 & kLow, w1 & kLow, odd0 & kLow, odd1 & kLow, weights[0], weights[1]);
        multiply(dot[1], __byte_perm(w0, 0, kEven), __byte_perm(w1, 0, kEven), odd0, odd1, weights[0], weights[1]);
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
template <int kGroups>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::gather_refined(
    const OwnRefined& refined) const {
    if (!kRotated) {
        return;
    }
    // With one group, the second one repeats it and is not read.
    const int next = fk.scale_groups >= kGroups ? kD : 0;
    const char* const scales = own + kAt.key_scales;
    const char* const zeros = scales + pinned(fk.scale_groups * kD);
    char* const to = own + kAt.refined + lane;
    char moved[kOwnRefined][kGroups][2];
    // All loads before the stores: their latencies overlap. A lane without a channel loads channel 0.
#pragma unroll
    for (int n = 0; n < kOwnRefined; ++n) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            moved[n][group][0] = scales[group * next + refined.channels[n]];
            moved[n][group][1] = zeros[group * next + refined.channels[n]];
        }
    }
#pragma unroll
    for (int n = 0; n < kOwnRefined; ++n) {
        if (32 * n + lane < kRefined) {
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
                to[group * kRefinedRows + 32 * n] = moved[n][group][0];
                to[(kTiles + group) * kRefinedRows + 32 * n] = moved[n][group][1];
            }
        }
    }
    __syncwarp();
}

// Two halves each.
constexpr unsigned kMinusOne = 0xbc00bc00u;
constexpr unsigned kFifteen = 0x4b804b80u;

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::fold_key_scales(
    int step, bool fine, int token_group, unsigned (&weights)[2], float (&bias)[4]) const {
    if (kPaper) {
        const uint4 pairs =
            *reinterpret_cast<const uint4*>(own + kAt.key_scales + (token_group * kD + 16 * step + 4 * j) * 4);
        const unsigned low0 = high_halves(pairs.x, pairs.z);
        const unsigned low1 = high_halves(pairs.y, pairs.w);
        multiply(bias, low0, low0, low1, low1, weights[0], weights[1]);
        weights[0] = times(weights[0], low_halves(pairs.x, pairs.z));
        weights[1] = times(weights[1], low_halves(pairs.y, pairs.w));
        return;
    }
    const char* const scales = fine ? own + kAt.refined + token_group * kRefinedRows + (step - kBaseSteps) * 16 + 4 * j
                                    : own + kAt.key_scales + token_group * kD + 16 * step + 4 * j;
    const int zeros = fine ? kTiles * kRefinedRows : fk.scale_groups * kD;  // after the scales
    const unsigned s = *reinterpret_cast<const unsigned*>(scales);
    const unsigned z = *reinterpret_cast<const unsigned*>(scales + zeros);
    weights[0] = times(weights[0], even_scales(s));
    weights[1] = times(weights[1], odd_scales(s));
    // Of refined channels, the weights of the coarse steps are 4 times those of the fine steps, and their squares 16
    // times: -16 + 15 squares remain. Zero points count fine steps: of 4 products with those of the coarse steps,
    // 4 - 3 remain. Coarse squares are negated because that takes fewer instructions than copies of the weights.
    const unsigned factor = fine ? kFifteen : kMinusOne;
    unsigned levels[2];
    if (fine) {
        zeros_to_halves<-3>(z, levels);
    } else {
        zeros_to_halves(z, levels);
    }
    multiply(bias, levels[0], times(weights[0], factor), levels[1], times(weights[1], factor), weights[0], weights[1]);
}

}  // namespace

}  // namespace lk::cuda
