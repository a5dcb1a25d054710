// The stages of attention over pages of codes on tensor cores; pages.cu calls them and describes the layout of codes in
// lanes. They share one struct because all of them work on the same page in shared memory.
#pragma once

#include "backend/cuda/attention/pages_layout.cuh"

namespace lk::cuda {

namespace {

// A lane's part of the output and softmax state: channels 16 i + g and 16 i + 8 + g of rows 2 j and 2 j + 1.
template <int kD>
struct PageOutput {
    float largest[2] = {-INFINITY, -INFINITY};  // base-2 logarithms
    float sum[2] = {0, 0};                      // over the lane's tokens
    float shift[4] = {0, 0, 0, 0};              // 3 * sum(p * s); half of it is subtracted from all channels
    float out[kD / 16][4];

    __device__ __forceinline__ PageOutput() {
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                out[i][k] = 0;
            }
        }
    }
};

// A warp and its page in shared memory.
template <int kD, int kBits, bool kPaper>
struct PageWarp {
    static constexpr Kind kKind{kD, kBits, kPaper};
    static constexpr bool kRotated = kKind.rotated();
    static constexpr int kLift = kKind.lift();
    static constexpr int kValueWords = kKind.value_words();
    static constexpr int kValueStride = kKind.value_stride();
    static constexpr int kSteps = kKind.code_rows() / 16;
    static constexpr int kBaseSteps = kD / 16;
    static constexpr int kQuads = kKind.code_rows() / 4;
    static constexpr int kQuadWords = 4 * kBits;
    static constexpr unsigned kMask = kBits == 2 ? 0x00030003u : 0x000f000fu;
    static constexpr int kRefined = kTiles * kD / 4;
    using Queries = unsigned[kSteps][2];
    using Scores = float[kTiles][4][2];  // of tokens 8 (4 tile + t) + g, rows 2 j and 2 j + 1

    const kv::PageFormat& fk;
    const kv::PageFormat& fv;
    const Layout& at;
    char* own;  // the warp's part of shared memory
    int lane;
    int g;
    int j;

    // Stage "load queries". q: row g, code rows of quads 4 step + j, channels 0 and 2, then 1 and 3. factor: converts
    // products with q of rows 2 j and 2 j + 1 to base-2 scores.
    __device__ __forceinline__ void load_queries(const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table,
                                                 const uint16_t* refined, char* shared, Queries& q,
                                                 float (&factor)[2]) const {
        // Maximum |q|.
        constexpr float kTop = kPaper ? 2.0f : 1024.0f;
        uint8_t* const wide = reinterpret_cast<uint8_t*>(shared);  // [D]: 4 for refined channels
        for (int i = threadIdx.x; i < kD; i += blockDim.x) {
            wide[i] = 1;
        }
        __syncthreads();
        if (kRotated && threadIdx.x < kD / 4) {
            wide[refined[threadIdx.x]] = 4;
        }
        __syncthreads();
        const float* const row = a.q + rows.output(min(g, rows.n - 1)) * kD;
        const auto value = [&](int step, int i) {
            const int code_row = 16 * step + 4 * j + i;
            return code_row < kD ? row[code_row] * wide[code_row] : row[refined[code_row - kD]];
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

    // Stage "load page": keys and values separately.
    __device__ __forceinline__ void fetch_keys(const uint8_t* page) const {
        for (int i = lane * 16; i < static_cast<int>(fk.page_bytes); i += 32 * 16) {
            copy_async(own + i, page + i);
        }
    }
    __device__ __forceinline__ void fetch_values(const uint8_t* page) const {
        constexpr int kPieces = kValueWords / 4;  // per block
#pragma unroll
        for (int i = lane; i < 8 * kPieces; i += 32) {
            copy_async(own + at.values + (i / kPieces * kValueStride + i % kPieces * 4) * 4, page + i * 16);
        }
        const int codes = static_cast<int>(fv.scales_offset);
        for (int i = lane * 16; i < static_cast<int>(fv.page_bytes) - codes; i += 32 * 16) {
            copy_async(own + at.value_scales + i, page + codes + i);
        }
    }

    // Stage "scores", without the factor. own_refined: refined channel lane % (D/4).
    __device__ __forceinline__ void multiply_keys(const Queries& q, int own_refined, Scores& score) const {
        if (kRotated) {
            move_refined(own_refined);
        }
        Queries weights;
        float bias[4] = {0, 0, 0, 0};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            if (tile * 32 % fk.group == 0) {
                fold_key_scales(q, tile * 32 / fk.group, weights, bias);
            }
            // Zero points count quarter steps.
            const float more[2] = {bias[0] * (kPaper ? 1.0f : 0.25f), bias[1] * (kPaper ? 1.0f : 0.25f)};
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

    // Stage "mask": masks tokens outside the run, sinks, and tokens before a row's window.
    __device__ __forceinline__ void hide_tokens(const QueryRows& rows, const Run& run, int n_sinks,
                                                const AttentionWork& a, Scores& score) const {
        if (run.count < kv::kPageTokens || run.start < n_sinks || a.window > 0) {
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                const int in_run = 8 * t + g - run.first;
                const int token = run.start + in_run;
                const bool there = in_run >= 0 && in_run < run.count && token >= n_sinks;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int last = rows.position(min(2 * j + e, rows.n - 1));
                    const bool seen = there && (a.window == 0 || token > last - a.window);
                    score[t / 4][t % 4][e] = seen ? score[t / 4][t % 4][e] : -INFINITY;
                }
            }
        }
    }

    // Stage "softmax update": turns scores into unnormalized probabilities times 2^(lift - place), which compensates
    // the place of each token's code, and stores them in shared memory.
    __device__ __forceinline__ void update_softmax(const float (&factor)[2], Scores& score, PageOutput<kD>& o) const {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float top = -INFINITY;
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                top = fmaxf(top, score[t / 4][t % 4][e]);
            }
            const float now = fmaxf(o.largest[e], max_of_column(top) * factor[e]);
            const float base = now == -INFINITY ? 0.0f : now;
            if (__any_sync(kAllLanes, now > o.largest[e])) {
                const float correction = exp2_fast(o.largest[e] - base);  // 0 if there was nothing before
                o.sum[e] *= correction;
                o.shift[e] *= correction;
                o.shift[2 + e] *= correction;
#pragma unroll
                for (int i = 0; i < kD / 16; ++i) {
                    o.out[i][e] *= correction;
                    o.out[i][2 + e] *= correction;
                }
            }
            o.largest[e] = now;
            // Token 8 t + g of a block of 16 has place (g / 4 + 2 (t % 2)) of 2 bits, t % 2 of 4 bits.
            const int place = kBits == 2 ? g / 4 * 2 : 0;
            const float lift0 = static_cast<float>(kLift - place) - base;
            const float lift1 = lift0 - 4;
            float total[2] = {0, 0};
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                const float x = exp2_fast(score[t / 4][t % 4][e] * factor[e] + (t % 2 == 0 ? lift0 : lift1));
                score[t / 4][t % 4][e] = x;
                total[t % 2] += x;
            }
            o.sum[e] += (total[0] + 16 * total[1]) * power2(place - kLift);
        }
        unsigned* const prob = reinterpret_cast<unsigned*>(own + at.prob);
#pragma unroll
        for (int t = 0; t < 4 * kTiles; ++t) {
            prob[g * (kProbRow / 2) + 4 * t + j] = transpose(pack(score[t / 4][t % 4][0], score[t / 4][t % 4][1]));
        }
    }

    // Stage "values".
    __device__ __forceinline__ void add_values(PageOutput<kD>& o) const {
        const unsigned* const words = reinterpret_cast<const unsigned*>(own + at.values) + j * kValueStride + g;
        Weights b;
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
            if (i == 0 || (!kRotated && 16 * i % fv.group == 0)) {
                const int channel_group = kRotated ? 0 : 16 * i / fv.group;
                float zero[4] = {0, 0, 0, 0};
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    fold_value_scales(h, channel_group, b[h], zero, o.shift);
                }
                if (!kRotated) {
                    // Adds to the channels of the group; all channels of a group get the same.
#pragma unroll
                    for (int n = 0; n < kD / 16; ++n) {
                        if (n >= i && 16 * n / fv.group == channel_group) {
#pragma unroll
                            for (int k = 0; k < 4; ++k) {
                                o.out[n][k] += zero[k] * (kPaper ? 1.0f : 0.25f);
                            }
                        }
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                unsigned w[2][2];  // channels g and g + 8; with 4 bits, tokens 8 n + (0..3), then 8 n + 4 + (0..3)
                const unsigned* const from = words + 4 * h * kValueStride + i * 8 * kBits;
                w[0][0] = from[0];
                w[0][1] = kBits == 2 ? w[0][0] : from[8];
                w[1][0] = from[4 * kBits];
                w[1][1] = kBits == 2 ? w[1][0] : from[4 * kBits + 8];
#pragma unroll
                for (int quad = 0; quad < 4; ++quad) {
                    const unsigned mask = kMask << (kBits == 2 ? 2 * quad : quad / 2 * 4);
                    const unsigned w0 = w[0][quad % 2];
                    const unsigned w1 = w[1][quad % 2];
                    multiply(o.out[i], w0 & mask, w1 & mask, w0 >> 8 & mask, w1 >> 8 & mask, b[h][quad][0],
                             b[h][quad][1]);
                }
            }
        }
    }

    // Stage "merge": merges the warps of a thread block. Called by all its threads.
    __device__ __forceinline__ void merge_warps(const AttentionWork& a, const QueryRows& rows, const uint8_t* v_table,
                                                int warp, char* shared, const PageOutput<kD>& o) const {
        __syncthreads();
        float* const sums = reinterpret_cast<float*>(shared);
        const float v_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));
        const float back = v_factor * power2(24 - kLift);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float* to = warp_part<kRows, kD>(sums, warp, 2 * j + e);
            const float total = sum_of_column(o.sum[e]);
            if (g == 0) {
                to[0] = o.largest[e] * 0.69314718f;
                to[1] = total;
            }
            const float less = kRotated ? 0.5f * o.shift[e] : 0.0f;  // 3/2 * sum(p * s), because level = code - 3/2
#pragma unroll
            for (int i = 0; i < kD / 16; ++i) {
                to[2 + 16 * i + g] = (o.out[i][e] - less) * back;
                to[2 + 16 * i + 8 + g] = (o.out[i][2 + e] - less) * back;
            }
        }
        join_parts<kRows, kD, kRotated>(a, blockIdx.y, rows, reinterpret_cast<const uint16_t*>(v_table + 4), sums);
    }

private:
    using Weights = unsigned[2][4][2];  // of tokens 64 h + 16 j + 4 p + (0, 2), then (1, 3)

    // Moves scales and zero points of refined channels to where the second plane reads them. A zero point counts fine
    // steps, which a refined channel has only in the second plane.
    __device__ __forceinline__ void move_refined(int own_refined) const {
#pragma unroll
        for (int n = 0; n < kRefined / 32; ++n) {
            const int i = 32 * n + lane;
            const int from = i / (kD / 4) * kD + own_refined;
            if (i >= fk.scale_groups * (kD / 4)) {
                break;
            }
            own[at.refined + i] = own[fk.scales_offset + from];
            own[at.refined + kRefined + i] = own[fk.zeros_offset + from];
            own[fk.zeros_offset + from] = 0;
        }
        __syncwarp();
    }

    // Computes queries times the scales of a token group, and the part of each score due to zero points or minima.
    __device__ __forceinline__ void fold_key_scales(const Queries& q, int token_group, Queries& weights,
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
            const char* const more = own + at.refined + token_group * (kD / 4) + (step - kBaseSteps) * 16 + 4 * j;
            const unsigned s = *reinterpret_cast<const unsigned*>(step < kBaseSteps ? scales + step * 16 : more);
            const unsigned z =
                *reinterpret_cast<const unsigned*>(step < kBaseSteps ? zeros + step * 16 : more + kRefined);
            weights[step][0] = times(q[step][0], even_scales(s));
            weights[step][1] = times(q[step][1], odd_scales(s));
            const unsigned z0 = even_zeros(z);
            const unsigned z1 = even_zeros(z >> 8);
            multiply(bias, z0, z0, z1, z1, weights[step][0], weights[step][1]);
        }
    }

    // Computes the probabilities of tokens 64 h to 64 h + 63 times the scales of a channel group. Adds to `zero` the
    // contribution of zero points or minima to each channel, or to `shift` the centring term of rotated values.
    __device__ __forceinline__ void fold_value_scales(int h, int channel_group, unsigned (&b)[4][2], float (&zero)[4],
                                                      float (&shift)[4]) const {
        const unsigned* const prob = reinterpret_cast<const unsigned*>(own + at.prob);
        const int token = 64 * h + 16 * j;
        const uint4* const row = reinterpret_cast<const uint4*>(prob + g * (kProbRow / 2) + token / 2);
        const uint4 first = row[0];
        const uint4 second = row[1];
        const unsigned pairs[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
        uint4 scales{};
        if (kRotated) {
            scales = *reinterpret_cast<const uint4*>(own + at.value_scales + token);
        }
        const unsigned scale_words[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
        for (int quad = 0; quad < 4; ++quad) {
            const unsigned p0 = low_halves(pairs[2 * quad], pairs[2 * quad + 1]);
            const unsigned p1 = high_halves(pairs[2 * quad], pairs[2 * quad + 1]);
            const int place = kBits == 2 ? 2 * quad : quad / 2 * 4;
            const unsigned one = 0x00010001u << place;
            if (kRotated) {
                b[quad][0] = times(p0, even_scales(scale_words[quad]));
                b[quad][1] = times(p1, odd_scales(scale_words[quad]));
                const unsigned three = 3 * one;
                multiply(shift, three, three, three, three, b[quad][0], b[quad][1]);
                continue;
            }
            const int s = (token + 4 * quad) * fv.scale_groups + channel_group;
            if (kPaper) {
                const unsigned* const from = reinterpret_cast<const unsigned*>(own + at.value_scales) + s;
                const unsigned w0 = from[0];
                const unsigned w1 = from[fv.scale_groups];
                const unsigned w2 = from[2 * fv.scale_groups];
                const unsigned w3 = from[3 * fv.scale_groups];
                b[quad][0] = times(p0, low_halves(w0, w2));
                b[quad][1] = times(p1, low_halves(w1, w3));
                multiply(zero, one, one, one, one, times(p0, high_halves(w0, w2)), times(p1, high_halves(w1, w3)));
                continue;
            }
            const uint8_t* const from = reinterpret_cast<const uint8_t*>(own + at.value_scales) + s;
            const uint8_t* const zeros = from + (fv.zeros_offset - fv.scales_offset);
            const auto word = [&](const uint8_t* x) {
                return x[0] | static_cast<unsigned>(x[fv.scale_groups]) << 8 |
                       static_cast<unsigned>(x[2 * fv.scale_groups]) << 16 |
                       static_cast<unsigned>(x[3 * fv.scale_groups]) << 24;
            };
            const unsigned scale = word(from);
            const unsigned z = word(zeros);
            b[quad][0] = times(p0, even_scales(scale));
            b[quad][1] = times(p1, odd_scales(scale));
            multiply(zero, one, one, one, one, times(b[quad][0], even_zeros(z)), times(b[quad][1], even_zeros(z >> 8)));
        }
    }
};

}  // namespace

}  // namespace lk::cuda
