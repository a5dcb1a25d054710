// Attention over pages of codes on tensor cores: queries and scores.
#pragma once

#include "backend/cuda/attention/pages_stages.cuh"

namespace lk::cuda {

namespace {

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::load_queries(
    const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table, const uint16_t* refined, char* shared,
    Queries& q, float (&factor)[2]) const {
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
    const float* const row = a.q + rows.output(min(g, rows.n - 1)) * kD;
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
    const float lift = g < rows.n ? finite_quotient(kTop, top) : 0.0f;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
        q[step][0] = pack(value(step, 0) * lift, value(step, 2) * lift);
        q[step][1] = pack(value(step, 1) * lift, value(step, 3) * lift);
    }
    const float k_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    // Never 0: the masked score -INFINITY * 0 would be NaN.
    const float back = lift > 0 ? fmaxf(top / kTop * a.scale * k_factor * 1.44269504f, FLT_MIN) : 1.0f;
    factor[0] = __shfl_sync(kAllLanes, back, 8 * j);
    factor[1] = __shfl_sync(kAllLanes, back, 8 * j + 4);
    __syncthreads();
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::multiply_keys(const Queries& q,
                                                                                       const OwnRefined& refined,
                                                                                       const float (&factor)[2],
                                                                                       Scores& score) const {
    if (kRotated) {
        move_refined(refined);
    }
    Queries weights;
    float bias[4] = {0, 0, 0, 0};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * 32 % fk.group == 0) {
            fold_key_scales(q, tile * 32 / fk.group, weights, bias);
        }
        // Zero points count quarter steps.
        float more[2] = {bias[0] * (kPaper ? 1.0f : 0.25f), bias[1] * (kPaper ? 1.0f : 0.25f)};
        if (!kPaper) {
            // Rows 2 j and 2 j + 1 of the diagonal, in the scores' units: times 1/24, divided by the factor that
            // converts scores to base 2, times its square without the logarithm.
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                more[e] -=
                    __shfl_sync(kAllLanes, bias[2 + e], (2 * j + e) * 4 + j) * factor[e] * (1 / (24 * 1.44269504f));
            }
        }
        const unsigned* const codes = reinterpret_cast<const unsigned*>(own) + (tile * kQuads + j) * kQuadWords + g;
        float dot[2][4] = {};
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            const unsigned w0 = codes[step * 4 * kQuadWords];
            const unsigned w1 = kBits == 2 ? w0 : codes[step * 4 * kQuadWords + 8];
#pragma unroll
            for (int h = 0; h < 2; ++h) {  // tokens 16 h ..
                const unsigned m0 = kMask << (4 * h);
                const unsigned m1 = kBits == 2 ? m0 << 2 : m0;
                multiply(dot[h], w0 & m0, w1 & m1, w0 >> 8 & m0, w1 >> 8 & m1, weights[step][0], weights[step][1]);
            }
        }
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            // 2-bit codes of rows g + 8 are one place higher.
            const int place = t / 2 * 4 + (kBits == 2 ? t % 2 * 2 : 0);
            const float unit = power2(24 - place);
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                score[tile][t][e] = dot[t / 2][t % 2 * 2 + e] * unit + more[e];
            }
        }
    }
}

constexpr unsigned kMinusFifteen = 0xcb80cb80u;  // -15 as two halves

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::move_refined(const OwnRefined& refined) const {
#pragma unroll
    for (int first = 0; first < kTiles; first += kAtOnce) {
        const int group = kAtOnce > 1 ? first + lane / (32 / kAtOnce) : first;
        if (group >= fk.scale_groups) {
            break;
        }
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            const int i = kAtOnce > 1 ? lane % (32 / kAtOnce) : 32 * n + lane;
            if (i < kRefined) {
                const int from = group * kD + refined.channels[n];
                const int to = at.refined + group * kRefinedRows + i;
                own[to] = own[fk.scales_offset + from];
                own[to + kTiles * kRefinedRows] = own[fk.zeros_offset + from];
                own[fk.zeros_offset + from] = 0;
            }
        }
    }
    __syncwarp();
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::fold_key_scales(const Queries& q,
                                                                                         int token_group,
                                                                                         Queries& weights,
                                                                                         float (&bias)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        bias[k] = 0;
    }
    const char* const scales = own + fk.scales_offset + (token_group * kD + 4 * j) * (kPaper ? 4 : 1);
    const char* const zeros = own + fk.zeros_offset + token_group * kD + 4 * j;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
        if (kPaper) {
            const uint4 pairs = *reinterpret_cast<const uint4*>(scales + step * 64);
            weights[step][0] = times(q[step][0], low_halves(pairs.x, pairs.z));
            weights[step][1] = times(q[step][1], low_halves(pairs.y, pairs.w));
            const unsigned low0 = high_halves(pairs.x, pairs.z);
            const unsigned low1 = high_halves(pairs.y, pairs.w);
            multiply(bias, low0, low0, low1, low1, q[step][0], q[step][1]);
            continue;
        }
        const char* const more = own + at.refined + token_group * kRefinedRows + (step - kBaseSteps) * 16 + 4 * j;
        const unsigned s = *reinterpret_cast<const unsigned*>(step < kBaseSteps ? scales + step * 16 : more);
        const unsigned z =
            *reinterpret_cast<const unsigned*>(step < kBaseSteps ? zeros + step * 16 : more + kTiles * kRefinedRows);
        weights[step][0] = times(q[step][0], even_scales(s));
        weights[step][1] = times(q[step][1], odd_scales(s));
        const unsigned z0 = even_zeros(z);
        const unsigned z1 = even_zeros(z >> 8);
        unsigned w0 = weights[step][0];
        unsigned w1 = weights[step][1];
        if (!kPaper && step >= kBaseSteps) {
            // The weights of the coarse steps are 4 times these, and their squares 16 times; one square is to remain.
            w0 = times(w0, kMinusFifteen);
            w1 = times(w1, kMinusFifteen);
        }
        multiply(bias, z0, !kPaper ? w0 : z0, z1, !kPaper ? w1 : z1, weights[step][0], weights[step][1]);
    }
}

}  // namespace

}  // namespace lk::cuda
