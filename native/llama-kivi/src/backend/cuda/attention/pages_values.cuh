// Attention over pages of codes on tensor cores: values.
#pragma once

#include "backend/cuda/attention/pages_stages.cuh"

namespace lk::cuda {

namespace {

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::add_values(PageOutput<kD>& o) const {
    const unsigned* const block = reinterpret_cast<const unsigned*>(own + at.values) + j * kValueStride;
    const unsigned* const words = block + g;
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
            const unsigned* const from = words + 4 * h * kValueStride + i * 8 * kValueBits;
            w[0][0] = from[0];
            w[0][1] = kBits == 2 ? w[0][0] : from[8];
            w[1][0] = from[4 * kValueBits];
            w[1][1] = kBits == 2 ? w[1][0] : from[4 * kBits + 8];
            // High bits: channel g is in word g % 4 of the plane, at bits 2 quad + g / 4.
            [[maybe_unused]] unsigned high[2] = {};
            if constexpr (kValueBits == 3) {
                const unsigned* const plane = block + 4 * h * kValueStride + i * 8 * kValueBits + 8 + g % 4;
                high[0] = plane[0] >> (g / 4);
                high[1] = plane[4 * kValueBits] >> (g / 4);
            }
            // The codes of tokens 4 quad + (0, 2) of channel g + 8 c, or with odd = 1 of tokens 4 quad + (1, 3).
            const auto codes = [&](int c, int quad, int odd) {
                const unsigned word = w[c][quad % 2];
                const unsigned mask = kMask << (kBits == 2 ? 2 * quad : quad / 2 * 4);
                const unsigned low = odd ? word >> 8 & mask : word & mask;
                if constexpr (kValueBits == 3) {
                    const unsigned lifted = odd ? high[c] >> 6 : high[c] << 2;
                    return low | (lifted & 0x00040004u << (2 * quad));
                }
                return low;
            };
#pragma unroll
            for (int quad = 0; quad < 4; ++quad) {
                multiply(o.out[i], codes(0, quad, 0), codes(1, quad, 0), codes(0, quad, 1), codes(1, quad, 1),
                         b[h][quad][0], b[h][quad][1]);
            }
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::fold_value_scales(int h, int channel_group,
                                                                                           unsigned (&b)[4][2],
                                                                                           float (&zero)[4],
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
            const unsigned twice = kTwiceMiddle * one;
            multiply(shift, twice, twice, twice, twice, b[quad][0], b[quad][1]);
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

}  // namespace

}  // namespace lk::cuda
