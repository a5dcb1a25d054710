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

template <int kRows, int kBits, bool kPaper, int kEdition, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kEdition, kCh>::load_value_scales(
    const uint8_t* v_page, float v_factor, float (&v_scale)[kTiles]) const {
    if (kRotated) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            v_scale[t] = byte_scale(v_page[fv.scales_offset + 32 * t + lane]) * v_factor;
        }
    }
}

template <int kRows, int kBits, bool kPaper, int kEdition, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kEdition, kCh>::fold_value_scales(
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

template <int kRows, int kBits, bool kPaper, int kEdition, int kCh>
__device__ __forceinline__ void RowWarp<kRows, kBits, kPaper, kEdition, kCh>::add_values(const uint8_t* v_page,
                                                                                         const Scale& scale,
                                                                                         Output& o) const {
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
            // 8 channels by kHalves words are contiguous; of 3-bit codes, these are the low bits.
            const int index = (b * (kD / 8) + lane * kCh / 8) * 4 * kValueBits + 8 * h + lane * kCh % 8;
            load_channels<kCh>(reinterpret_cast<const unsigned*>(v_page) + index, words[h]);
        }
        // High bits: channel c of 8 is in word c % 4 of the plane, at bits 2 quad + c / 4.
        [[maybe_unused]] unsigned high[kCh] = {};
        if constexpr (kValueBits == 3) {
            const unsigned* const plane =
                reinterpret_cast<const unsigned*>(v_page) + (b * (kD / 8) + lane * kCh / 8) * 12 + 8 + lane * kCh % 4;
            load_channels<kCh>(plane, high);
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                high[c] >>= lane * kCh / 4 % 2;
            }
        }
        // The codes of four tokens of a channel, one per byte.
        const auto codes = [&](int h, int c, int s) {
            const unsigned low = words[h][c] >> (kBits * s) & kMask;
            const unsigned lifted = s == 0 ? high[c] << 2 : high[c] >> (2 * s - 2);
            return static_cast<int>(kValueBits == 3 ? low | (lifted & 0x04040404u) : low);
        };
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
                        total[r][c] = __dp4a(codes(h, c, s), w[kHalves * s + h], total[r][c]);
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

}  // namespace

}  // namespace lk::cuda
