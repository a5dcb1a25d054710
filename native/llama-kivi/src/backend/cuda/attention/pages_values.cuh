// Attention over pages of codes on tensor cores: values.
#pragma once

#include "backend/cuda/attention/pages_stages.cuh"

namespace lk::cuda {

namespace {

// Four consecutive words, loaded at once.
struct Four {
    unsigned words[4] = {};

    Four() = default;
    __device__ explicit Four(const unsigned* from) {
        const uint4 x = *reinterpret_cast<const uint4*>(from);
        words[0] = x.x;
        words[1] = x.y;
        words[2] = x.z;
        words[3] = x.w;
    }
};

// The bytes of a channel group of four tokens, each of which has one byte per group.
__device__ __forceinline__ unsigned bytes_of_group(const char* tokens, int n_groups, int group) {
    if (n_groups == 1) {
        return *reinterpret_cast<const unsigned*>(tokens);
    }
    if (n_groups == 2) {
        const uint2 pairs = *reinterpret_cast<const uint2*>(tokens);
        return __byte_perm(pairs.x, pairs.y, group == 0 ? 0x6420 : 0x7531);
    }
    const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(tokens) + group;
    return bytes[0] | static_cast<unsigned>(bytes[n_groups]) << 8 | static_cast<unsigned>(bytes[2 * n_groups]) << 16 |
           static_cast<unsigned>(bytes[3 * n_groups]) << 24;
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::add_values(PageOutput<kD>& o) const {
    if constexpr (kRotated) {
        float zero[4] = {0, 0, 0, 0};  // stays so
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            Weights b;
            fold_value_scales(h, 0, b, zero, o.shift);
#pragma unroll
            for (int unit = 0; unit < kD / 32; ++unit) {
                multiply_values(unit, h, b, o);
            }
        }
    } else {
        Weights b[2];
#pragma unroll
        for (int unit = 0; unit < kD / 32; ++unit) {
            if (unit == 0 || 32 * unit % fv.group == 0) {
                const int channel_group = 32 * unit / fv.group;
                float zero[4] = {0, 0, 0, 0};
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    fold_value_scales(h, channel_group, b[h], zero, o.shift);
                }
                // Adds to the channels of the group; all channels of a group get the same.
#pragma unroll
                for (int n = 0; n < kD / 16; ++n) {
                    if (n >= 2 * unit && 16 * n / fv.group == channel_group) {
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            o.out[n][k] += zero[k] * (kPaper ? 1.0f : 0.25f);
                        }
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                multiply_values(unit, h, b[h], o);
            }
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::multiply_values(int unit, int h,
                                                                                         const Weights& b,
                                                                                         PageOutput<kD>& o) const {
    // The lane's channels of a unit of 32 are 4 g to 4 g + 3, half of block g / 2.
    const unsigned* const block =
        reinterpret_cast<const unsigned*>(own + kAt.value_codes) + j * kValueStride + g / 2 * (4 * kValueBits);
    const unsigned* const words = block + g % 2 * 4;
    // Of the lane's four channels; with 4 bits, tokens 8 n + (0..3), then 8 n + 4 + (0..3).
    const int at = 4 * h * kValueStride + unit * 16 * kValueBits;
    Four w[2];
    w[0] = Four(words + at);
    w[1] = kBits == 2 ? w[0] : Four(words + at + 8);
    // High bits: channel c of a block is in word c % 4 of the plane, at bits 2 quad + c / 4.
    [[maybe_unused]] Four high;
    if constexpr (kValueBits == 3) {
        high = Four(block + at + 8);
#pragma unroll
        for (unsigned& word : high.words) {
            word >>= g % 2;
        }
    }
    // The codes of tokens 4 quad + (0, 2) of the lane's channel c, or with odd = 1 of tokens 4 quad + (1, 3).
    const auto codes = [&](int c, int quad, int odd) {
        const unsigned word = w[quad % 2].words[c];
        const unsigned mask = kMask << (kBits == 2 ? 2 * quad : quad / 2 * 4);
        const unsigned low = odd ? word >> 8 & mask : word & mask;
        if constexpr (kValueBits == 3) {
            const unsigned lifted = odd ? high.words[c] >> 6 : high.words[c] << 2;
            return low | (lifted & 0x00040004u << (2 * quad));
        }
        return low;
    };
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int quad = 0; quad < 4; ++quad) {
            multiply(o.out[2 * unit + i], codes(2 * i, quad, 0), codes(2 * i + 1, quad, 0), codes(2 * i, quad, 1),
                     codes(2 * i + 1, quad, 1), b[quad][0], b[quad][1]);
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits>::fold_value_scales(int h, int channel_group,
                                                                                           Weights& b, float (&zero)[4],
                                                                                           float (&shift)[4]) const {
    const unsigned* const prob = reinterpret_cast<const unsigned*>(own + kAt.prob);
    const int token = 64 * h + 16 * j;
    const uint4* const row = reinterpret_cast<const uint4*>(prob + g * (kProbRow / 2) + token / 2);
    const uint4 first = row[0];
    const uint4 second = row[1];
    const unsigned p[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
    uint4 scales{};
    if (kRotated) {
        scales = *reinterpret_cast<const uint4*>(own + value_scales + token);
    }
    const unsigned scale_words[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
        const unsigned p0 = p[2 * quad];
        const unsigned p1 = p[2 * quad + 1];
        const int place = kBits == 2 ? 2 * quad : quad / 2 * 4;
        const unsigned one = 0x00010001u << place;
        if (kRotated) {
            b[quad][0] = times(p0, even_scales(scale_words[quad]));
            b[quad][1] = times(p1, odd_scales(scale_words[quad]));
            const unsigned twice = kTwiceMiddle * one;
            multiply(shift, twice, twice, twice, twice, b[quad][0], b[quad][1]);
            continue;
        }
        if (kPaper) {
            const int s = (token + 4 * quad) * fv.scale_groups + channel_group;
            const unsigned* const from = reinterpret_cast<const unsigned*>(own + value_scales) + s;
            const unsigned w0 = from[0];
            const unsigned w1 = from[fv.scale_groups];
            const unsigned w2 = from[2 * fv.scale_groups];
            const unsigned w3 = from[3 * fv.scale_groups];
            b[quad][0] = times(p0, low_halves(w0, w2));
            b[quad][1] = times(p1, low_halves(w1, w3));
            multiply(zero, one, one, one, one, times(p0, high_halves(w0, w2)), times(p1, high_halves(w1, w3)));
            continue;
        }
        const char* const from = own + value_scales + (token + 4 * quad) * fv.scale_groups;
        const unsigned scale = bytes_of_group(from, fv.scale_groups, channel_group);
        const unsigned z = bytes_of_group(from + (fv.zeros_offset - fv.scales_offset), fv.scale_groups, channel_group);
        unsigned zeros[2];
        zeros_to_halves(z, zeros);
        b[quad][0] = times(p0, even_scales(scale));
        b[quad][1] = times(p1, odd_scales(scale));
        multiply(zero, one, one, one, one, times(b[quad][0], zeros[0]), times(b[quad][1], zeros[1]));
    }
}

}  // namespace

}  // namespace lk::cuda
