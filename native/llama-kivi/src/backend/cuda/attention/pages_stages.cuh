// The stages of attention over pages of codes on tensor cores; pages.cu calls them and describes the layout of codes in
// lanes. They share one struct because all of them work on the same page in shared memory.
#pragma once

#include "backend/cuda/attention/join_parts.cuh"
#include "backend/cuda/attention/pages_layout.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"

namespace lk::cuda {

namespace {

// A lane's part of the output and softmax state: channels value_channel(i) and the next, of rows 2 j and 2 j + 1.
template <int kD>
struct PageOutput {
    float largest[2] = {-INFINITY, -INFINITY};  // base-2 logarithms
    float sum[2] = {0, 0};                      // over the lane's tokens
    float shift[4] = {0, 0, 0, 0};              // kTwiceMiddle * sum(p * s); half of it is subtracted from all channels
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
template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
struct PageWarp {
    static constexpr Kind kKind{kD, kBits, kPaper, kValueBits, kRows};
    static constexpr Layout kAt{kKind};
    static constexpr bool kRotated = kKind.rotated();
    static constexpr int kLift = kKind.lift();
    static constexpr int kValueWords = kKind.value_words();
    static constexpr int kValueStride = kKind.value_stride();
    static constexpr int kSteps = (kD + kKind.refined_rows()) / 16;
    static constexpr int kBaseSteps = kD / 16;
    static constexpr int kQuads = kKind.code_rows() / 4;
    static constexpr int kQuadWords = 4 * kBits;
    static constexpr unsigned kTwiceMiddle = (1 << kValueBits) - 1;  // of the levels of rotated values
    static constexpr unsigned kMask = kBits == 2 ? 0x00030003u : 0x000f000fu;
    static constexpr int kScaleBytes = kPaper ? 4 : 2;  // with the zero point or minimum
    static constexpr int kRefined = kKind.refined();
    static constexpr int kRefinedRows = kKind.refined_rows();
    static constexpr int kOwnRefined = (kRefined + 31) / 32 > 0 ? (kRefined + 31) / 32 : 1;
    // Queries are in shared memory with 2 bits, which saves registers, and in registers with 4 bits.
    static constexpr bool kQueriesShared = kBits == 2;
    static constexpr int kPairs = (kSteps + 1) / 2;
    static constexpr int kQueryBytes = kPairs * 32 * sizeof(uint4);  // of load_queries
    static constexpr int kProbTokens = kKind.prob_tokens();
    static constexpr int kProbRow = kKind.prob_row();
    static constexpr int kProbHalf = kKind.prob_half();
    static constexpr bool kPaired = kKind.paired();
    static_assert(kRows == kPagesRows || kRows == kPairedRows);
    static constexpr int kOwnTiles = kPaired ? kTiles / 2 : kTiles;  // of a lane's scores
    struct Queries {
        // From [step / 2, lane]: row g, code rows of quads 4 step + j, channels 0 and 2, then 1 and 3, of two steps.
        const uint4* shared;
        uint4 own[kQueriesShared ? 1 : kPairs];

        __device__ __forceinline__ uint4 pair(int i) const { return kQueriesShared ? shared[i * 32] : own[i]; }
    };
    // Of tokens 8 (4 tile + t) + token, rows 2 j and 2 j + 1. If kPaired: of lanes 2 and 3 of j, of tokens 64 later and
    // the rows of lanes 0 and 1.
    using Scores = float[kOwnTiles][4][2];

    const kv::PageFormat& fk;
    const kv::PageFormat& fv;
    char* own;         // the warp's part of shared memory
    int value_scales;  // offset in `own`
    int lane;
    int g;
    int j;
    int token;  // of row g of a step, in 8: the bits of g with the lowest two exchanged. Probabilities of tokens 4 p
                // and 4 p + 2, 4 p + 1 and 4 p + 3 are then side by side, in the order of codes in a word of values.

    // Stage "load queries". shared: kD bytes that no page is copied to. queries: kQueryBytes of shared memory after the
    // pages; without kQueriesShared, anywhere else.
    // factor: converts products with queries of rows 2 j and 2 j + 1 to base-2 scores.
    __device__ __forceinline__ void load_queries(const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table,
                                                 const uint16_t* refined, char* shared, char* queries, Queries& q,
                                                 float (&factor)[2]) const;

    // Stage "load page": keys and values separately.
    __device__ __forceinline__ void fetch_keys(const uint8_t* page) const {
        constexpr int kBytes = kKind.key_code_bytes();
        const LaneCopy copy(own, page);
#pragma unroll
        for (int i = 0; i < kBytes; i += LaneCopy::kWarp) {
            if (i + LaneCopy::kWarp <= kBytes || copy.first < kBytes - i) {
                copy_async(copy.to + i, copy.from + i);
            }
        }
        copy_scales<kD * kTiles * kScaleBytes>(copy, kAt.key_scales, kBytes, fk);
    }
    __device__ __forceinline__ void fetch_values(const uint8_t* page) const {
        constexpr int kBytes = kKind.value_code_bytes();
        constexpr int kBlock = kValueWords * 4;
        static_assert(kBytes % LaneCopy::kWarp == 0);
        const LaneCopy copy(own, page);
#pragma unroll
        for (int i = 0; i < kBytes; i += LaneCopy::kWarp) {
            const int blocks = kBlock % LaneCopy::kWarp == 0 ? i / kBlock : (i + copy.first) / kBlock;
            copy_async(copy.to + kAt.value_codes + i + blocks * (4 * kValueStride - kBlock), copy.from + i);
        }
        constexpr int kGroups = kRotated ? 1 : kD / 32;
        copy_scales<kv::kPageTokens * kGroups*(kRotated ? 1 : kScaleBytes)>(copy, value_scales, kBytes, fv);
    }

    // The refined channels that a lane moves.
    struct OwnRefined {
        int channels[kOwnRefined];
    };
    __device__ __forceinline__ OwnRefined own_refined(const uint16_t* refined) const {
        OwnRefined own_channels{};
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            const int i = 32 * n + lane;
            own_channels.channels[n] = kRotated && i < kRefined ? refined[i] : 0;
        }
        return own_channels;
    }

    // Stage "scores", without the factor. factor: that of load_queries.
    __device__ __forceinline__ void multiply_keys(const Queries& q, const OwnRefined& refined, const float (&factor)[2],
                                                  Scores& score) const;

    // Stage "mask": masks tokens outside the run, sinks, and tokens before a row's window.
    __device__ __forceinline__ void hide_tokens(const QueryRows& rows, const Run& run, int n_sinks,
                                                const AttentionWork& a, Scores& score) const {
        if (run.count < kv::kPageTokens || run.start < n_sinks || a.window > 0) {
            // The first token that each row sees. Computed here, of a volatile value, to occupy no registers elsewhere.
            const int column = lane_index() % 4 * 2;
            const int first_row = column % kRows;
            const int first_token = (column < kRows ? 0 : 64) + token;
            int first[2] = {0, 0};
            if (a.window > 0) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    first[e] = rows.position(min(first_row + e, rows.n - 1)) - a.window + 1;
                }
            }
#pragma unroll
            for (int t = 0; t < 4 * kOwnTiles; ++t) {
                const int in_run = 8 * t + first_token - run.first;
                const int position = run.start + in_run;
                const bool there = in_run >= 0 && in_run < run.count && position >= n_sinks;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const bool seen = there && position >= first[e];
                    score[t / 4][t % 4][e] = seen ? score[t / 4][t % 4][e] : -INFINITY;
                }
            }
        }
    }

    // Stage "softmax update": turns scores into unnormalized probabilities times 2^(lift - place), which compensates
    // the place of each token's code.
    __device__ __forceinline__ void update_softmax(const float (&factor)[2], Scores& score, PageOutput<kD>& o) const {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float top = -INFINITY;
#pragma unroll
            for (int t = 0; t < 4 * kOwnTiles; ++t) {
                top = fmaxf(top, score[t / 4][t % 4][e]);
            }
            top = max_of_column(top);
            if (kPaired) {
                top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
            }
            const float now = fmaxf(o.largest[e], top * factor[e]);
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
            // Token 8 t + token of a block of 16 has place (g / 4 + 2 (t % 2)) of 2 bits, t % 2 of 4 bits.
            const int place = kBits == 2 ? g / 4 * 2 : 0;
            const float lift0 = static_cast<float>(kLift - place) - base;
            const float lift1 = lift0 - 4;
            float total[2] = {0, 0};
#pragma unroll
            for (int t = 0; t < 4 * kOwnTiles; ++t) {
                const float x = exp2_fast(score[t / 4][t % 4][e] * factor[e] + (t % 2 == 0 ? lift0 : lift1));
                score[t / 4][t % 4][e] = x;
                total[t % 2] += x;
            }
            o.sum[e] += (total[0] + 16 * total[1]) * power2(place - kLift);
        }
        if (kProbTokens == kv::kPageTokens) {
            store_probabilities(score, 0);
        }
    }

    // Stage "values". score: probabilities.
    __device__ __forceinline__ void add_values(const Scores& score, PageOutput<kD>& o) const;

    // Stage "merge": merges the warps of a thread block. Called by all its threads.
    __device__ __forceinline__ void merge_warps(const AttentionWork& a, const QueryRows& rows, const uint8_t* v_table,
                                                int warp, char* shared, const PageOutput<kD>& o) const {
        __syncthreads();
        float* const sums = reinterpret_cast<float*>(shared);
        const float v_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));
        const float back = v_factor * power2(24 - kLift);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float total = sum_of_column(o.sum[e]);
            if (kPaired) {
                total += __shfl_xor_sync(kAllLanes, total, 2);
                if (j >= 2) {
                    continue;  // the same rows as lanes 0 and 1
                }
            }
            float* to = warp_part<kRows, kD>(sums, warp, 2 * j + e);
            if (g == 0) {
                to[0] = o.largest[e] * 0.69314718f;
                to[1] = total;
            }
            const float less = kRotated ? 0.5f * o.shift[e] : 0.0f;  // level = code - kTwiceMiddle / 2
#pragma unroll
            for (int i = 0; i < kD / 16; ++i) {
                *reinterpret_cast<float2*>(to + 2 + value_channel(i)) =
                    make_float2((o.out[i][e] - less) * back, (o.out[i][2 + e] - less) * back);
            }
        }
        join_parts<kRows, kD, kRotated>(a, blockIdx.y, rows, reinterpret_cast<const uint16_t*>(v_table + 4), sums);
    }

private:
    // Stores probabilities of the kProbTokens tokens from 64 h on.
    __device__ __forceinline__ void store_probabilities(const Scores& score, int h) const {
        unsigned* const prob =
            reinterpret_cast<unsigned*>(own + kAt.prob) + g % kRows * kProbRow + g / kRows * kProbHalf + j;
#pragma unroll
        for (int i = 0; i < (kPaired ? 4 * kOwnTiles : kProbTokens / 8); ++i) {
            const float(&x)[2] = score[2 * h + i / 4][i % 4];
            prob[4 * i] = transpose(pack(x[0], x[1]));
        }
    }

    using Weights = unsigned[4][2];  // of tokens 64 h + 16 j + 4 p + (0, 2), then (1, 3)

    // Copies the scales of a page, at most kMost bytes. to, from: offsets in `own` and in the page.
    template <int kMost>
    __device__ __forceinline__ static void copy_scales(const LaneCopy& copy, int to, int from,
                                                       const kv::PageFormat& f) {
        const int bytes = static_cast<int>(f.page_bytes - f.scales_offset) - copy.first;
#pragma unroll
        for (int i = 0; i < kMost; i += LaneCopy::kWarp) {
            copy_async_if(i < bytes, copy.to + to + i, copy.from + from + i);
        }
    }

    // The lane's channel of row g in out[i]; that of row g + 8 is the next one.
    __device__ __forceinline__ int value_channel(int i) const {
        return i / 2 * 32 + 4 * g + i % 2 * 2;
    }

    // Copies scales and zero points of the refined channels of kGroups token groups to where the second plane reads
    // them.
    template <int kGroups>
    __device__ __forceinline__ void gather_refined(const OwnRefined& refined) const;

    // multiply_keys for kAtOnce tiles of one token group.
    template <int kAtOnce>
    __device__ __forceinline__ void multiply_tiles(const Queries& q, int first, const float (&factor)[2],
                                                   Scores& score) const;

    // Adds the products of a step with w0, the word of `token` (with 4 bits also w1, the next one): row r of dot has
    // those with the lowest r + 1 codes of each byte (with 4 bits, rows g with those of w0, rows g + 8 of w1). A mask
    // of the other codes would take one instruction more per word; the codes are separated in the scores.
    __device__ __forceinline__ static void multiply_bytes(float (&dot)[2][4], unsigned w0, unsigned w1,
                                                          const unsigned (&weights)[2]);

    // Multiplies `weights`, the queries of a step, by the scales of a token group. Adds to bias[0] and bias[1] the part
    // of each score due to zero points or minima. With score correction, adds to bias[2] and bias[3] row g times rows
    // 2 j and 2 j + 1 of the weights, without the coarse steps of refined channels: the sums of squares are on the
    // diagonal, negated.
    __device__ __forceinline__ void fold_key_scales(int step, bool fine, int token_group, unsigned (&weights)[2],
                                                    float (&bias)[4]) const;

    // Adds values of tokens 64 h to 64 h + 63, channels 32 unit to 32 unit + 31.
    __device__ __forceinline__ void multiply_values(int unit, int h, const Weights& b, PageOutput<kD>& o) const;

    // Computes the probabilities of tokens 64 h to 64 h + 63 times the scales of a channel group. Adds to `zero` the
    // contribution of zero points or minima to each channel, or to `shift` the centring term of rotated values.
    __device__ __forceinline__ void fold_value_scales(int h, int channel_group, Weights& b, float (&zero)[4],
                                                      float (&shift)[4]) const;
};

}  // namespace

}  // namespace lk::cuda
