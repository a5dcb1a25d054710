// Attention over pages of codes with dp4a: queries and scores.
#pragma once

#include "backend/cuda/attention/pages_row_stages.cuh"

namespace lk::cuda {

namespace {

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::load_queries(
    const AttentionWork& a, const QueryRows& rows, const uint8_t* k_table, float k_factor, Queries& x) const {
    x.has_quad = lane < kD / 4;
#pragma unroll
    for (int n = 0; n < kOwnRefined; ++n) {
        x.has_refined[n] = 32 * n + lane < kRefined;
        x.refined[n] = x.has_refined[n] ? *reinterpret_cast<const uint16_t*>(k_table + 4 + 2 * (32 * n + lane)) : 0;
    }
    unsigned wide = 0;  // byte i: 1 if channel i of the lane's quad is refined
    if (kRotated) {
        // A byte per channel, where the weights will be.
        unsigned* const quad = reinterpret_cast<unsigned*>(fold_k) + lane;
        if (x.has_quad) {
            *quad = 0;
        }
        __syncwarp();
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            if (x.has_refined[n]) {
                fold_k[x.refined[n]] = 1;
            }
        }
        __syncwarp();
        wide = x.has_quad ? *quad : 0;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x.wide[i] = (wide >> (8 * i) & 1u) != 0 ? 4.0f : 1.0f;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const float* row = a.q + rows.output(min(r, rows.n - 1)) * kD;
        const float scale = a.scale * k_factor;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x.q[r][i] = x.has_quad ? row[4 * lane + i] * scale : 0.0f;
        }
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            x.q_refined[r][n] = x.has_refined[n] ? row[x.refined[n]] * scale : 0.0f;
        }
    }
}

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::multiply_keys(const uint8_t* k_page,
                                                                                              int n_tokens,
                                                                                              const Queries& x,
                                                                                              Scores& score) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            score[r][tile] = 0;
        }
    }
    Scale scale;
    const float own_place = place(lane / kWords);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
        if (32 * tile >= n_tokens) {
            break;
        }
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
            score[r][tile] = scale.step[r] * own_place * static_cast<float>(mine) + scale.bias[r];
        }
    }
}

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::fold_key_scales(const uint8_t* k_page,
                                                                                                int g, const Queries& x,
                                                                                                Scale& scale) const {
    float s[4] = {};
    float z[4] = {};
    float s_refined[kOwnRefined] = {};
    if (x.has_quad) {
        if (kPaper) {
            const uint4 pairs = *reinterpret_cast<const uint4*>(k_page + fk.scales_offset + (g * kD + 4 * lane) * 4);
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
#pragma unroll
    for (int n = 0; n < kOwnRefined; ++n) {
        if (x.has_refined[n]) {
            s_refined[n] = byte_scale(k_page[fk.scales_offset + g * kD + x.refined[n]]);
        }
    }
    __syncwarp();  // all lanes are done with the previous group's weights
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        float w[4];
        float constant = 0;
        float w_refined[kOwnRefined];
        float top = 0;
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            w_refined[n] = x.q_refined[r][n] * s_refined[n];
            top = fmaxf(top, fabsf(w_refined[n]));
            constant += w_refined[n] * kMiddle;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float fine = x.q[r][i] * s[i];
            w[i] = fine * x.wide[i];
            constant += x.q[r][i] * z[i] + w[i] * kMiddle;
            if (!kPaper) {
                constant -= fine * fine * (1.0f / 24);  // PageFormat::score_correction
            }
            top = fmaxf(top, fabsf(w[i]));
        }
        top = warp_max_positive(top);
        const float inverse = finite_quotient(127.0f, top);
        const unsigned packed = pack(low_byte(w[0] * inverse), low_byte(w[1] * inverse), low_byte(w[2] * inverse),
                                     low_byte(w[3] * inverse));
        int total = __dp4a(static_cast<int>(packed), 0x01010101, 0);
        if (x.has_quad) {
            *reinterpret_cast<unsigned*>(fold_k + r * kWeights + 4 * lane) = packed;
        }
#pragma unroll
        for (int n = 0; n < kOwnRefined; ++n) {
            const int8_t code = static_cast<int8_t>(low_byte(w_refined[n] * inverse));
            total += kRotated ? code : 0;
            if (kD + 32 * n + lane < kWeights && kRotated) {  // 0 beyond the refined channels
                fold_k[r * kWeights + kD + 32 * n + lane] = code;
            }
        }
        total = __reduce_add_sync(kAllLanes, total);
        scale.step[r] = top / 127.0f;
        scale.bias[r] = warp_sum(constant) - scale.step[r] * kMiddle * static_cast<float>(total);
    }
    __syncwarp();
}

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::multiply_words(
    const unsigned (&words)[kSteps], int (&dot)[kRows][kTokens]) const {
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
        unsigned parts[kTokens];
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            parts[t] = words[i] & (kMask << (kBits * t));  // codes times 2^(kBits t)
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const int weights = *reinterpret_cast<const int*>(fold_k + r * kWeights + 4 * quad);
#pragma unroll
            for (int t = 0; t < kTokens; ++t) {
                dot[r][t] = multiply_bytes(parts[t], weights, dot[r][t]);
            }
        }
    }
}

}  // namespace

}  // namespace lk::cuda
