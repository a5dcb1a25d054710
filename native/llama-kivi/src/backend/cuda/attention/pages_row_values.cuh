// Attention over pages of codes with dp4a: values.
#pragma once

#include "backend/cuda/attention/pages_row_stages.cuh"

namespace lk::cuda {

namespace {

// Loads a word of each of a lane's channels; they are aligned to their size.
template <int kCh>
__device__ __forceinline__ void load_channels(const unsigned* from, unsigned (&words)[kCh]) {
    if (kCh == 4) {
        const uint4 four = __ldg(reinterpret_cast<const uint4*>(from));
        words[0] = four.x;
        words[1] = four.y;
        words[kCh - 2] = four.z;
        words[kCh - 1] = four.w;
    } else {
        const uint2 two = __ldg(reinterpret_cast<const uint2*>(from));
        words[0] = two.x;
        words[1] = two.y;
    }
}

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::load_value_scales(
    const uint8_t* v_page, float v_factor, float (&v_scale)[kTiles]) const {
    if (kRotated) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            v_scale[t] = byte_scale(v_page[fv.scales_offset + 32 * t + lane]) * v_factor;
        }
    }
}

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::fold_value_scales(
    const uint8_t* v_page, float v_factor, const Scores& score, float (&v_scale)[kTiles], Scale& scale) const {
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
                    constant += there ? score[r][t] * v_zero[t] + w[t] * kValueMiddle : 0.0f;
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
            float group_bias = -group_step * kValueMiddle * static_cast<float>(total);
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

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kValueBits, kCh>::add_values(const uint8_t* v_page,
                                                                                           int n_tokens,
                                                                                           const Scale& scale,
                                                                                           Output& o) const {
    int total[kRows][kCh][kTokens] = {};  // per place in a byte
    const int4* const weights = reinterpret_cast<const int4*>(fold_v + scale.group * kRows * kv::kPageTokens);
    const unsigned* const codes = reinterpret_cast<const unsigned*>(v_page);
    constexpr int kStep = kRows == 1 ? 4 : 2;  // blocks of 16 tokens whose loads are in flight together
#pragma unroll
    for (int first = 0; first < kv::kPageTokens / kv::kValueBlockTokens; first += kStep) {
        if (first * kv::kValueBlockTokens >= n_tokens) {
            break;
        }
        constexpr int kHalves = kBits / 2;  // words per channel
        unsigned words[kStep][kHalves][kCh];
        [[maybe_unused]] unsigned high[kStep][kCh] = {};
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
            const int block = (first + i) * (kD / 8) + lane * kCh / 8;  // 8 channels are contiguous
#pragma unroll
            for (int h = 0; h < kHalves; ++h) {
                load_channels<kCh>(codes + block * 4 * kValueBits + 8 * h + lane * kCh % 8, words[i][h]);
            }
            if constexpr (kValueBits == 3) {
                // Channel c of 8 is in word c % 4 of the plane of high bits, at bits 2 quad + c / 4.
                load_channels<kCh>(codes + block * 12 + 8 + lane * kCh % 4, high[i]);
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    high[i][c] >>= lane * kCh / 4 % 2;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const int4 w4 = weights[r * (kv::kPageTokens / 16) + first + i];
                const int w[4] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
                for (int h = 0; h < kHalves; ++h) {
#pragma unroll
                    for (int c = 0; c < kCh; ++c) {
#pragma unroll
                        for (int s = 0; s < kTokens; ++s) {
                            total[r][c][s] = multiply_bytes(value_codes(words[i][h][c], high[i][c], s),
                                                            w[kHalves * s + h], total[r][c][s]);
                        }
                    }
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            int sum = 0;
#pragma unroll
            for (int s = 0; s < kTokens; ++s) {
                sum += total[r][c][s] >> value_place(s);  // exact
            }
            o.out[r][c] += scale.step[r] * static_cast<float>(sum) + scale.bias[r];
        }
    }
}

}  // namespace

}  // namespace lk::cuda
