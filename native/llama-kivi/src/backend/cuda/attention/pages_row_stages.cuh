// The stages of attention over pages of codes with dp4a; pages_row.cu calls them. They share one struct because all of
// them work on the same page.
#pragma once

#include "backend/cuda/attention/join_parts.cuh"

namespace lk::cuda {

namespace {

constexpr int kTiles = 4;  // tiles of 32 tokens per page

// Maximum over a warp, for non-negative floats.
__device__ inline float warp_max_positive(float x) {
    return __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(x)));
}

// Rounds x to an integer in -127..127, in the low byte: adding 1.5 * 2^23 shifts it there.
__device__ inline unsigned low_byte(float x) {
    return __float_as_uint(x + 12582912.0f);
}

// Packs four low bytes into a word.
__device__ inline unsigned pack(unsigned a, unsigned b, unsigned c, unsigned d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

__device__ inline float signed_byte(unsigned word, int i) {
    return static_cast<float>(static_cast<int8_t>(word >> (8 * i)));
}

// Sum of four products of bytes, unsigned in a and signed in b, plus c.
__device__ inline int multiply_bytes(unsigned a, int b, int c) {
    int d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// Key weights of a row: the code rows, rounded up to the 16 of a step.
__host__ __device__ constexpr int key_weights(int code_rows) {
    return (code_rows + 15) / 16 * 16;
}

// Shared memory of a warp: int8 [rows, key weights]; value weights, int8 [channel groups, rows, 128].
__host__ __device__ inline int page_warp_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int fold_k = rows * key_weights(k.rows);
    return fold_k + v.scale_groups * rows * kv::kPageTokens;
}

// Shared memory of a thread block: that of its warps, reused at the end for their partial results.
__host__ __device__ inline int page_block_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int work = kJoinWarps * page_warp_bytes(k, v, rows);
    const int sums = join_bytes(rows, k.head_size);
    return work > sums ? work : sums;
}

// kBits: bits per code of keys. kPaper: scale and minimum are halves. kValueBits: bits per code of values. 2 bits
// without kPaper is kivi2 or kivi3: refined keys, rotated values.
template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
struct RowWarp {
    static constexpr bool kIsPaper = kPaper;
    static constexpr bool kRotated = kBits == 2 && !kPaper;
    static constexpr int kD = kCh * 32;
    static constexpr int kRefined = kRotated ? refined_in(kValueBits, kD) : 0;  // channels
    static constexpr int kOwnRefined = kRefined > 32 ? 2 : 1;                   // of a lane
    static constexpr int kWeights = key_weights(kD + kRefined);
    static constexpr int kQuads = (kD + kRefined) / 4;
    static constexpr int kWords = 32 * kBits / 8;  // words per quad and tile
    static constexpr int kTokens = 8 / kBits;      // tokens per word
    // Loads per lane and tile. The last one may reach beyond the quads of the tile; the weights there are 0.
    static constexpr int kSteps = (kQuads * kWords + 31) / 32;
    static constexpr unsigned kMask = kBits == 2 ? 0x03030303u : 0x0f0f0f0fu;
    static constexpr float kMiddle = 0.5f * ((1 << kBits) - 1);
    static constexpr float kValueMiddle = 0.5f * ((1 << kValueBits) - 1);
    static_assert(kSteps * 32 / kWords * 4 <= kWeights);

    // A lane folds code rows 4 lane to 4 lane + 3 (quad `lane`) and refined rows `lane` and 32 + lane.
    struct Queries {
        float q[kRows][4];
        float q_refined[kRows][kOwnRefined];
        float wide[4];             // 4 for refined channels, whose base plane holds the high bits
        int refined[kOwnRefined];  // channels of the refined rows
        bool has_quad;             // true for kD / 4 lanes
        bool has_refined[kOwnRefined];
    };
    using Output = Softmax<kRows, kCh>;
    // Dequantizes the integer sums of dp4a: x = step * sum + bias.
    struct Scale {
        float step[kRows];
        float bias[kRows];
        int group;  // the lane's channel group; values only
    };
    using Scores = float[kRows][kTiles];  // of token 32 tile + lane

    const kv::PageFormat& fk;
    const kv::PageFormat& fv;
    int8_t* fold_k;  // the warp's key and value weights, in shared memory
    int8_t* fold_v;
    int lane;

    // Stage "load queries".
    __device__ __forceinline__ void load_queries(const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table,
                                                 float k_factor, Queries& x) const;

    // Stage "scores", of tiles with some of the first n_tokens tokens.
    __device__ __forceinline__ void multiply_keys(const uint8_t* k_page, int n_tokens, const Queries& x,
                                                  Scores& score) const;

    // Stages "mask" and "softmax update": turns scores into unnormalized probabilities. last: positions of the rows.
    __device__ __forceinline__ void update_softmax(const Run& run, int n_sinks, const AttentionWork& a,
                                                   const int (&last)[kRows], Scores& score, Output& o) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float top = -INFINITY;
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                const int in_run = 32 * t + lane - run.first;
                const int token = run.start + in_run;
                const bool seen = in_run >= 0 && in_run < run.count && token >= n_sinks &&
                                  (a.window == 0 || token > last[r] - a.window);
                score[r][t] = seen ? score[r][t] : -INFINITY;
                top = fmaxf(top, score[r][t]);
            }
            const float base = o.raise(r, warp_max_any(top));
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                score[r][t] = __expf(score[r][t] - base);
                o.sum[r] += score[r][t];
            }
        }
    }

    // Scales of rotated values, one per token of the lane.
    __device__ __forceinline__ void load_value_scales(const uint8_t* v_page, float v_factor,
                                                      float (&v_scale)[kTiles]) const;

    // Stage "fold values": rounds probabilities times scales to 8-bit weights, per channel group. scale: that of the
    // lane's group.
    __device__ __forceinline__ void fold_value_scales(const uint8_t* v_page, float v_factor, const Scores& score,
                                                      float (&v_scale)[kTiles], Scale& scale) const;

    // Stage "values", of tiles with some of the first n_tokens tokens.
    __device__ __forceinline__ void add_values(const uint8_t* v_page, int n_tokens, const Scale& scale,
                                               Output& o) const;

private:
    // The inverse of what a code is multiplied by in place t of a byte.
    __device__ static float place(int t) {
        return __int_as_float((127 - kBits * t) << 23);
    }

    // The bit of its byte that value_codes() moves the codes of place s to. A code of three bits does not fit at bit 6.
    __device__ static constexpr int value_place(int s) {
        return kBits * (kValueBits == 3 && s == 3 ? 2 : s);
    }

    // The codes of place s of a word of values, one per byte. high: the word of their high bits, at bit 2 s.
    __device__ static unsigned value_codes(unsigned word, [[maybe_unused]] unsigned high, int s) {
        if constexpr (kValueBits == 3) {
            return s == 3 ? (word >> 2 & 0x30303030u) | (high & 0x40404040u)
                          : (word & 0x03030303u << (2 * s)) | (high << 2 & 0x04040404u << (2 * s));
        } else {
            return word & (kMask << (kBits * s));
        }
    }

    // Rounds queries times the scales of a token group to 8-bit weights.
    __device__ __forceinline__ void fold_key_scales(const uint8_t* k_page, int g, const Queries& x, Scale& scale) const;

    // Multiplies a lane's words of a tile by the weights of their quads, per token of a word; see place.
    __device__ __forceinline__ void multiply_words(const unsigned (&words)[kSteps], int (&dot)[kRows][kTokens]) const;
};

}  // namespace

}  // namespace lk::cuda
