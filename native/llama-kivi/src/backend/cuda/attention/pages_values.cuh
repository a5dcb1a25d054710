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

// Reads the bytes of a channel group of 16 tokens, each of which has one byte per group.
__device__ __forceinline__ void bytes_of_group(const char* tokens, int n_groups, int group, unsigned (&words)[4]) {
    if (n_groups <= 2) {
        const uint4* const from = reinterpret_cast<const uint4*>(tokens);
        const uint4 x = from[0];
        const uint4 y = from[n_groups - 1];
        const unsigned select = n_groups == 1 ? 0x3210 : 0x6420 + group * 0x1111;
        words[0] = __byte_perm(x.x, x.y, select);
        words[1] = n_groups == 1 ? x.y : __byte_perm(x.z, x.w, select);
        words[2] = n_groups == 1 ? x.z : __byte_perm(y.x, y.y, select);
        words[3] = n_groups == 1 ? x.w : __byte_perm(y.z, y.w, select);
        return;
    }
    const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(tokens) + group;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint8_t* const four = bytes + 4 * i * n_groups;
        words[i] = four[0] | static_cast<unsigned>(four[n_groups]) << 8 |
                   static_cast<unsigned>(four[2 * n_groups]) << 16 | static_cast<unsigned>(four[3 * n_groups]) << 24;
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::add_values(const Scores& score,
                                                                                           PageOutput<kD>& o) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        if (kProbTokens < kv::kPageTokens) {
            __syncwarp();  // all lanes are done with the other half
            store_probabilities(score, h);
            __syncwarp();
        }
        Weights b;
#pragma unroll
        for (int unit = 0; unit < kD / 32; ++unit) {
            if (unit == 0 || (!kRotated && 32 * unit % fv.group == 0)) {
                const int channel_group = kRotated ? 0 : 32 * unit / fv.group;
                float zero[4] = {0, 0, 0, 0};
                fold_value_scales(h, channel_group, b, zero, o.shift);
                if (!kRotated) {
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
            }
            multiply_values(unit, h, b, o);
        }
    }
}

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::multiply_values(
    int unit, int h, const Weights& b, PageOutput<kD>& o) const {
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

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows>
__device__ __forceinline__ void PageWarp<kD, kBits, kPaper, kValueBits, kRows>::fold_value_scales(
    int h, int channel_group, Weights& b, float (&zero)[4], float (&shift)[4]) const {
    const unsigned* const prob = reinterpret_cast<const unsigned*>(own + kAt.prob);
    const int first_token = 64 * h + 16 * j;
    const int first_word = h * 64 % kProbTokens / 64 * kProbHalf + 8 * j;
    const uint4* const row = reinterpret_cast<const uint4*>(prob + g % kRows * kProbRow + first_word);
    const uint4 first = row[0];
    const uint4 second = row[1];
    const unsigned p[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
    unsigned scales[4] = {};
    unsigned zeros[4] = {};
    if (kRotated) {
        bytes_of_group(own + value_scales + first_token, 1, 0, scales);
    } else if (!kPaper) {
        const char* const from = own + value_scales + first_token * fv.scale_groups;
        bytes_of_group(from, fv.scale_groups, channel_group, scales);
        bytes_of_group(from + (fv.zeros_offset - fv.scales_offset), fv.scale_groups, channel_group, zeros);
    }
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
        const unsigned p0 = p[2 * quad];
        const unsigned p1 = p[2 * quad + 1];
        const int place = kBits == 2 ? 2 * quad : quad / 2 * 4;
        const unsigned one = 0x00010001u << place;
        if (kRotated) {
            b[quad][0] = times(p0, even_scales(scales[quad]));
            b[quad][1] = times(p1, odd_scales(scales[quad]));
            const unsigned twice = kTwiceMiddle * one;
            multiply(shift, twice, twice, twice, twice, b[quad][0], b[quad][1]);
            continue;
        }
        if (kPaper) {
            const int s = (first_token + 4 * quad) * fv.scale_groups + channel_group;
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
        unsigned z[2];
        zeros_to_halves(zeros[quad], z);
        b[quad][0] = times(p0, even_scales(scales[quad]));
        b[quad][1] = times(p1, odd_scales(scales[quad]));
        multiply(zero, one, one, one, one, times(b[quad][0], z[0]), times(b[quad][1], z[1]));
    }
}

}  // namespace

}  // namespace lk::cuda
