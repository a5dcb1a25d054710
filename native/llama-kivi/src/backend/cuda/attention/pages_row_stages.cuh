// The stages of attention over pages of codes with dp4a; pages_row.cu calls them. They share one struct because all of
// them work on the same page.
#pragma once

#include "backend/cuda/attention/common.cuh"

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

// Shared memory of a warp: key weights, int8 [rows, code rows]; value weights, int8 [channel groups, rows, 128].
__host__ __device__ inline int page_warp_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int fold_k = (rows * k.rows + 15) / 16 * 16;
    return fold_k + v.scale_groups * rows * kv::kPageTokens;
}

// Shared memory of a thread block: that of its warps, reused at the end for their partial results.
__host__ __device__ inline int page_block_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int work = kJoinWarps * page_warp_bytes(k, v, rows);
    const int sums = join_bytes(rows, k.head_size);
    return work > sums ? work : sums;
}

// kBits: bits per code. kPaper: scale and minimum are halves. 2 bits without kPaper is kivi2: refined keys, rotated
// values.
template <int kRows, int kBits, bool kPaper, int kCh>
struct RowWarp {
    static constexpr bool kRotated = kBits == 2 && !kPaper;
    static constexpr int kD = kCh * 32;
    static constexpr int kCodeRows = kRotated ? kD * 5 / 4 : kD;
    static constexpr int kQuads = kCodeRows / 4;
    static constexpr int kWords = 32 * kBits / 8;        // words per quad and tile
    static constexpr int kTokens = 8 / kBits;            // tokens per word
    static constexpr int kSteps = kQuads * kWords / 32;  // loads per lane and tile
    static constexpr unsigned kMask = kBits == 2 ? 0x03030303u : 0x0f0f0f0fu;
    static constexpr float kMiddle = 0.5f * ((1 << kBits) - 1);
    static_assert(kQuads * kWords % 32 == 0);

    // A lane folds code rows 4 lane to 4 lane + 3 (quad `lane`) and refined row `lane`.
    struct Queries {
        float q[kRows][4];
        float q_refined[kRows];
        float wide[4];     // 4 for refined channels, whose base plane holds the high bits
        int refined;       // channel of refined row `lane`
        bool has_quad;     // true for kD / 4 lanes
        bool has_refined;  // true for kD / 4 lanes of kivi2
    };
    struct Output {
        float largest[kRows];
        float sum[kRows];  // over the lane's tokens
        float out[kRows][kCh];
    };
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
                                                 float k_factor, Queries& x) const {
        x.has_quad = lane < kD / 4;
        x.has_refined = kRotated && lane < kD / 4;
        x.refined = x.has_refined ? *reinterpret_cast<const uint16_t*>(k_table + 4 + 2 * lane) : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x.wide[i] = 1;
        }
        if (kRotated) {
            for (int i = 0; i < kD / 4; ++i) {
                const int c = __shfl_sync(kAllLanes, x.refined, i) - 4 * lane;
                if (c >= 0 && c < 4) {
                    x.wide[0] = c == 0 ? 4.0f : x.wide[0];
                    x.wide[1] = c == 1 ? 4.0f : x.wide[1];
                    x.wide[2] = c == 2 ? 4.0f : x.wide[2];
                    x.wide[3] = c == 3 ? 4.0f : x.wide[3];
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float* row = a.q + rows.output(min(r, rows.n - 1)) * kD;
            const float scale = a.scale * k_factor;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x.q[r][i] = x.has_quad ? row[4 * lane + i] * scale : 0.0f;
            }
            x.q_refined[r] = x.has_refined ? row[x.refined] * scale : 0.0f;
        }
    }

    // Stage "scores".
    __device__ __forceinline__ void multiply_keys(const uint8_t* k_page, const Queries& x, Scores& score) const {
        Scale scale;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const unsigned* codes = reinterpret_cast<const unsigned*>(k_page) + tile * kQuads * kWords + lane;
            unsigned words[kSteps];
#pragma unroll
            for (int i = 0; i < kSteps; ++i) {
                words[i] = __ldg(codes + 32 * i);
            }
            if (tile * 32 % fk.group == 0) {
                fold_key_scales(k_page, tile * 32 / fk.group, x, scale);
            }
            int dot[kRows][kTokens];
            multiply_words(words, dot);
            // The sums of token kWords * t + w of the tile are in the lanes of word w. Lane kWords * t + w adds them
            // up.
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                int mine = 0;
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    int total = dot[r][t];
#pragma unroll
                    for (int offset = kWords; offset < 32; offset *= 2) {
                        total += __shfl_xor_sync(kAllLanes, total, offset);
                    }
                    mine = lane / kWords == t ? total : mine;
                }
                score[r][tile] = scale.step[r] * static_cast<float>(mine) + scale.bias[r];
            }
        }
    }

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
            const float now = fmaxf(o.largest[r], warp_max_any(top));
            const float base = now == -INFINITY ? 0.0f : now;
            if (now > o.largest[r]) {
                const float correction = __expf(o.largest[r] - base);
                o.sum[r] *= correction;
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    o.out[r][c] *= correction;
                }
                o.largest[r] = now;
            }
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                score[r][t] = __expf(score[r][t] - base);
                o.sum[r] += score[r][t];
            }
        }
    }

    // Scales of rotated values, one per token of the lane.
    __device__ __forceinline__ void load_value_scales(const uint8_t* v_page, float v_factor,
                                                      float (&v_scale)[kTiles]) const {
        if (kRotated) {
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                v_scale[t] = byte_scale(v_page[fv.scales_offset + 32 * t + lane]) * v_factor;
            }
        }
    }

    // Stage "fold values": rounds probabilities times scales to 8-bit weights, per channel group. scale: that of the
    // lane's group.
    __device__ __forceinline__ void fold_value_scales(const uint8_t* v_page, float v_factor, const Scores& score,
                                                      float (&v_scale)[kTiles], Scale& scale) const {
        __syncwarp();
        const int n_groups = kRotated ? 1 : fv.scale_groups;
        scale.group = kRotated ? 0 : lane * kCh / fv.group;
        for (int g = 0; g < n_groups; ++g) {
            float v_zero[kTiles];
            if (!kRotated) {
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const int at = (32 * t + lane) * fv.scale_groups + g;
                    if (kPaper) {
                        const unsigned pair = *reinterpret_cast<const unsigned*>(v_page + fv.scales_offset + at * 4);
                        v_scale[t] = half_bits_to_float(static_cast<uint16_t>(pair));
                        v_zero[t] = half_bits_to_float(static_cast<uint16_t>(pair >> 16));
                    } else {
                        v_scale[t] = byte_scale(v_page[fv.scales_offset + at]) * v_factor;
                        v_zero[t] =
                            v_scale[t] * 0.25f * static_cast<float>(static_cast<int8_t>(v_page[fv.zeros_offset + at]));
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                float w[kTiles];
                float top = 0;
                float constant = 0;
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const bool there = score[r][t] > 0;  // masked tokens may have invalid scales
                    w[t] = there ? score[r][t] * v_scale[t] : 0.0f;
                    top = fmaxf(top, fabsf(w[t]));
                    if (!kRotated) {
                        constant += there ? score[r][t] * v_zero[t] + w[t] * kMiddle : 0.0f;
                    }
                }
                top = warp_max_positive(top);
                const float inverse = finite_quotient(127.0f, top);
                int total = 0;
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const int8_t code = static_cast<int8_t>(low_byte(w[t] * inverse));
                    total += code;
                    fold_v[(g * kRows + r) * kv::kPageTokens + 32 * t + lane] = code;
                }
                total = __reduce_add_sync(kAllLanes, total);
                const float group_step = top / 127.0f;
                float group_bias = -group_step * kMiddle * static_cast<float>(total);
                if (!kRotated) {
                    group_bias += warp_sum(constant);  // 0 for rotated values, whose levels are symmetric
                }
                if (g == scale.group) {
                    scale.step[r] = group_step;
                    scale.bias[r] = group_bias;
                }
            }
        }
        __syncwarp();
    }

    // Stage "values".
    __device__ __forceinline__ void add_values(const uint8_t* v_page, const Scale& scale, Output& o) const {
        int total[kRows][kCh];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                total[r][c] = 0;
            }
        }
        const int4* const weights = reinterpret_cast<const int4*>(fold_v + scale.group * kRows * kv::kPageTokens);
#pragma unroll(kRows == 1 ? 8 : 4)
        for (int b = 0; b < kv::kPageTokens / kv::kValueBlockTokens; ++b) {
            constexpr int kHalves = kBits / 2;  // words per channel
            unsigned words[kHalves][kCh];
#pragma unroll
            for (int h = 0; h < kHalves; ++h) {
                // 8 channels by kHalves words are contiguous.
                const int index = (b * (kD / 8) + lane * kCh / 8) * 8 * kHalves + 8 * h + lane * kCh % 8;
                const unsigned* from = reinterpret_cast<const unsigned*>(v_page) + index;
                if (kCh == 4) {
                    const uint4 four = __ldg(reinterpret_cast<const uint4*>(from));
                    words[h][0] = four.x;
                    words[h][1] = four.y;
                    words[h][kCh - 2] = four.z;
                    words[h][kCh - 1] = four.w;
                } else {
                    const uint2 two = __ldg(reinterpret_cast<const uint2*>(from));
                    words[h][0] = two.x;
                    words[h][1] = two.y;
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const int4 w4 = weights[r * (kv::kPageTokens / 16) + b];
                const int w[4] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
                for (int h = 0; h < kHalves; ++h) {
#pragma unroll
                    for (int c = 0; c < kCh; ++c) {
#pragma unroll
                        for (int s = 0; s < kTokens; ++s) {
                            total[r][c] = __dp4a(static_cast<int>(words[h][c] >> (kBits * s) & kMask),
                                                 w[kHalves * s + h], total[r][c]);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                o.out[r][c] += scale.step[r] * static_cast<float>(total[r][c]) + scale.bias[r];
            }
        }
    }

private:
    // Rounds queries times the scales of a token group to 8-bit weights.
    __device__ __forceinline__ void fold_key_scales(const uint8_t* k_page, int g, const Queries& x,
                                                    Scale& scale) const {
        float s[4] = {};
        float z[4] = {};
        float s_refined = 0;
        if (x.has_quad) {
            if (kPaper) {
                const uint4 pairs =
                    *reinterpret_cast<const uint4*>(k_page + fk.scales_offset + (g * kD + 4 * lane) * 4);
                const unsigned w[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[i] = half_bits_to_float(static_cast<uint16_t>(w[i]));
                    z[i] = half_bits_to_float(static_cast<uint16_t>(w[i] >> 16));
                }
            } else {
                const unsigned w = *reinterpret_cast<const unsigned*>(k_page + fk.scales_offset + g * kD + 4 * lane);
                const unsigned zeros = *reinterpret_cast<const unsigned*>(k_page + fk.zeros_offset + g * kD + 4 * lane);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[i] = byte_scale(w >> (8 * i) & 0xffu);
                    z[i] = s[i] * 0.25f * signed_byte(zeros, i);
                }
            }
        }
        if (x.has_refined) {
            s_refined = byte_scale(k_page[fk.scales_offset + g * kD + x.refined]);
        }
        __syncwarp();  // all lanes are done with the previous group's weights
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float w[4];
            float constant = 0;
            const float w_refined = x.q_refined[r] * s_refined;
            float top = fabsf(w_refined);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[i] = x.q[r][i] * s[i] * x.wide[i];
                constant += x.q[r][i] * z[i] + w[i] * kMiddle;
                top = fmaxf(top, fabsf(w[i]));
            }
            constant += w_refined * kMiddle;
            top = warp_max_positive(top);
            const float inverse = finite_quotient(127.0f, top);
            const unsigned packed = pack(low_byte(w[0] * inverse), low_byte(w[1] * inverse), low_byte(w[2] * inverse),
                                         low_byte(w[3] * inverse));
            int total = __dp4a(static_cast<int>(packed), 0x01010101, 0);
            if (x.has_quad) {
                *reinterpret_cast<unsigned*>(fold_k + r * kCodeRows + 4 * lane) = packed;
            }
            if (kRotated) {
                const int8_t code = static_cast<int8_t>(low_byte(w_refined * inverse));
                total += code;
                if (x.has_refined) {
                    fold_k[r * kCodeRows + kD + lane] = code;
                }
            }
            total = __reduce_add_sync(kAllLanes, total);
            scale.step[r] = top / 127.0f;
            scale.bias[r] = warp_sum(constant) - scale.step[r] * kMiddle * static_cast<float>(total);
        }
        __syncwarp();
    }

    // Multiplies a lane's words of a tile by the weights of their quads, per token of a word.
    __device__ __forceinline__ void multiply_words(const unsigned (&words)[kSteps], int (&dot)[kRows][kTokens]) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int t = 0; t < kTokens; ++t) {
                dot[r][t] = 0;
            }
        }
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
            const int quad = lane / kWords + 32 / kWords * i;
            int parts[kTokens];
#pragma unroll
            for (int t = 0; t < kTokens; ++t) {
                parts[t] = static_cast<int>(words[i] >> (kBits * t) & kMask);
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const int weights = *reinterpret_cast<const int*>(fold_k + r * kCodeRows + 4 * quad);
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    dot[r][t] = __dp4a(parts[t], weights, dot[r][t]);
                }
            }
        }
    }
};

}  // namespace

}  // namespace lk::cuda
