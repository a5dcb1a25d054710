// The stages of attention over pages of codes on tensor cores; pages.cu calls them and describes the layout of codes in
// lanes. They share one struct because all of them work on the same page in shared memory.
#pragma once

#include "backend/cuda/attention/pages_layout.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"

namespace lk::cuda {

namespace {

// A lane's part of the output and softmax state: channels 16 i + g and 16 i + 8 + g of rows 2 j and 2 j + 1.
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
template <int kD, int kBits, bool kPaper, int kValueBits>
struct PageWarp {
    static constexpr Kind kKind{kD, kBits, kPaper, kValueBits};
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
    static constexpr int kRefined = kKind.refined();
    static constexpr int kRefinedRows = kKind.refined_rows();
    static constexpr int kAtOnce =
        kRefined > 0 && kRefined <= 16 ? 32 / kRefined : 1;  // groups per step of move_refined
    static constexpr int kOwnRefined = (kRefined + 31) / 32 > 0 ? (kRefined + 31) / 32 : 1;
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
                                                 float (&factor)[2]) const;

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

    // The refined channels that a lane moves.
    struct OwnRefined {
        int channels[kOwnRefined];
    };
    __device__ __forceinline__ OwnRefined own_refined(const uint16_t* refined) const {
        OwnRefined own_channels{};
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            const int i = kAtOnce > 1 ? lane % (32 / kAtOnce) : 32 * n + lane;
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
    __device__ __forceinline__ void add_values(PageOutput<kD>& o) const;

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
            const float less = kRotated ? 0.5f * o.shift[e] : 0.0f;  // level = code - kTwiceMiddle / 2
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
    __device__ __forceinline__ void move_refined(const OwnRefined& refined) const;

    // Computes queries times the scales of a token group, and the part of each score due to zero points or minima
    // (bias[0], bias[1]). With score correction, bias[2] and bias[3] are row g times rows 2 j and 2 j + 1 of the
    // weights, without the coarse steps of refined channels: the sums of squares are on the diagonal.
    __device__ __forceinline__ void fold_key_scales(const Queries& q, int token_group, Queries& weights,
                                                    float (&bias)[4]) const;

    // Computes the probabilities of tokens 64 h to 64 h + 63 times the scales of a channel group. Adds to `zero` the
    // contribution of zero points or minima to each channel, or to `shift` the centring term of rotated values.
    __device__ __forceinline__ void fold_value_scales(int h, int channel_group, unsigned (&b)[4][2], float (&zero)[4],
                                                      float (&shift)[4]) const;
};

}  // namespace

}  // namespace lk::cuda
