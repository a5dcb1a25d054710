// Dequantizes weights, eight elements at a time. Layouts: quant/blocks.h.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/weight_type.h"
#include "backend/cuda/device/words.cuh"
#include "quant/blocks.h"

namespace lk::cuda {

// Eight elements of quantized weights: byte codes; an element is code * scale + offset.
struct Codes8 {
    __device__ void unpack(float* out) const {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            out[j] = static_cast<float>(words[j / 4] >> (8 * (j % 4)) & 0xff) * scale + offset;
        }
    }

    unsigned words[2];
    float scale;
    float offset;
};

// Scales and offsets of sub-blocks 2 pair and 2 pair + 1 of a Q4_K or Q5_K super block; the two share their code bytes.
struct PairScales {
    // header: the first 16 bytes: d, dmin, and 6-bit scales and minima in 12 bytes; layout in quant/blocks.h.
    __device__ PairScales(uint4 header, int pair) {
        const int shift = pair % 2 * 16;
        const unsigned first = header.y >> shift;
        const unsigned second = header.z >> shift;
        const unsigned third = header.w >> shift;
        scales = pair < 2 ? first & 0x3f3fu : (third & 0x0f0fu) | (first >> 2 & 0x3030u);
        minima = pair < 2 ? second & 0x3f3fu : (third >> 4 & 0x0f0fu) | (second >> 2 & 0x3030u);
        d = halves(header.x);
    }

    __device__ float scale(int k) const { return __low2float(d) * static_cast<float>(scales >> (8 * k) & 63); }
    __device__ float offset(int k) const { return -__high2float(d) * static_cast<float>(minima >> (8 * k) & 63); }
    // Scale and offset, rounded to halves.
    __device__ __half2 half_scales() const { return __hmul2(bytes_to_halves(scales, 0x4140), __low2half2(d)); }
    __device__ __half2 half_offsets() const {
        return __hmul2(bytes_to_halves(minima, 0x4140), __hneg2(__high2half2(d)));
    }

    unsigned scales;  // two bytes
    unsigned minima;
    __half2 d;
};

// Decodes elements [i, i + 8) of a row; i is a multiple of 8. Layouts: quant/blocks.h.
template <WeightType kType, Space kSpace = Space::global>
__device__ inline Codes8 codes8(const uint8_t* row, int i) {
    Codes8 out;
    const auto mask = [&](const unsigned(&words)[2], int shift, unsigned bits) {
        out.words[0] = words[0] >> shift & bits;
        out.words[1] = words[1] >> shift & bits;
    };
    // Expands the bits of two words into bit `bit` of the codes.
    const auto set = [&](unsigned first, unsigned second, int bit) {
        out.words[0] |= first << bit;
        out.words[1] |= second << bit;
    };
    unsigned w[2];
    if constexpr (kType == WeightType::Q8_0) {
        const uint8_t* const b = row + static_cast<size_t>(i / 32) * sizeof(BlockQ8_0);
        load_words<kSpace>(b + 2 + i % 32, w);
        out.words[0] = w[0] ^ 0x80808080u;
        out.words[1] = w[1] ^ 0x80808080u;
        out.scale = half_bits_to_float(load_u16(b));
        out.offset = -128 * out.scale;
    } else if constexpr (kType == WeightType::Q4_0 || kType == WeightType::Q4_1 || kType == WeightType::Q5_0 ||
                         kType == WeightType::Q5_1) {
        constexpr bool five = kType == WeightType::Q5_0 || kType == WeightType::Q5_1;
        constexpr bool minimum = kType == WeightType::Q4_1 || kType == WeightType::Q5_1;
        constexpr int header = minimum ? 4 : 2;
        constexpr int size = header + (five ? 4 : 0) + 16;
        const uint8_t* const b = row + static_cast<size_t>(i / 32) * size;
        const int at = i % 32;
        load_words<kSpace>(b + header + (five ? 4 : 0) + at % 16, w);
        mask(w, at / 16 * 4, 0x0f0f0f0fu);
        if constexpr (five) {
            const unsigned high = load_u32(b + header) >> at;
            // Spreads bits 0 to 3 to bit 0 of four bytes.
            const auto spread = [](unsigned x) { return (x & 0xfu) * 0x00204081u & 0x01010101u; };
            set(spread(high), spread(high >> 4), 4);
        }
        out.scale = half_bits_to_float(load_u16(b));
        out.offset = minimum ? half_bits_to_float(load_u16(b + 2)) : (five ? -16.0f : -8.0f) * out.scale;
    } else if constexpr (kType == WeightType::Q4_K || kType == WeightType::Q5_K) {
        constexpr bool five = kType == WeightType::Q5_K;
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * (five ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        const int at = i % 256;
        const int sub = at / 32;
        const uint2 codes = *reinterpret_cast<const uint2*>(b + 16 + (five ? 32 : 0) + at / 64 * 32 + at % 32);
        w[0] = codes.x;
        w[1] = codes.y;
        mask(w, sub % 2 * 4, 0x0f0f0f0fu);
        if constexpr (five) {
            const uint2 high = *reinterpret_cast<const uint2*>(b + 16 + at % 32);
            set(high.x >> sub & 0x01010101u, high.y >> sub & 0x01010101u, 4);
        }
        const uint8_t* const scales = b + 4;
        const int scale = sub < 4 ? scales[sub] & 63 : (scales[sub + 4] & 15) | (scales[sub - 4] >> 6 << 4);
        const int least = sub < 4 ? scales[sub + 4] & 63 : (scales[sub + 4] >> 4) | (scales[sub] >> 6 << 4);
        const float2 d = __half22float2(*reinterpret_cast<const __half2*>(b));
        out.scale = d.x * static_cast<float>(scale);
        out.offset = -d.y * static_cast<float>(least);
    } else if constexpr (kType == WeightType::Q6_K) {
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ6_K);
        const int at = i % 256;
        const int part = at / 128;
        const int quarter = at % 128 / 32;
        load_words<kSpace>(b + part * 64 + quarter % 2 * 32 + at % 32, w);
        mask(w, quarter / 2 * 4, 0x0f0f0f0fu);
        load_words<kSpace>(b + 128 + part * 32 + at % 32, w);
        set(w[0] >> (quarter * 2) & 0x03030303u, w[1] >> (quarter * 2) & 0x03030303u, 4);
        out.scale = half_bits_to_float(load_u16(b + 208)) * static_cast<float>(static_cast<int8_t>(b[192 + at / 16]));
        out.offset = -32 * out.scale;
    } else if constexpr (kType == WeightType::Q2_K) {
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ2_K);
        const int at = i % 256;
        load_words<kSpace>(b + 16 + at / 128 * 32 + at % 32, w);
        mask(w, at % 128 / 32 * 2, 0x03030303u);
        out.scale = half_bits_to_float(load_u16(b + 80)) * static_cast<float>(b[at / 16] & 15);
        out.offset = -half_bits_to_float(load_u16(b + 82)) * static_cast<float>(b[at / 16] >> 4);
    } else {
        static_assert(kType == WeightType::Q3_K);
        const uint8_t* const b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ3_K);
        const int at = i % 256;
        load_words<kSpace>(b + 32 + at / 128 * 32 + at % 32, w);
        mask(w, at % 128 / 32 * 2, 0x03030303u);
        load_words<kSpace>(b + at % 32, w);
        set(w[0] >> (at / 32) & 0x01010101u, w[1] >> (at / 32) & 0x01010101u, 2);
        const uint8_t* const scales = b + 96;
        const int s = at / 16;
        const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        const int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        out.scale = half_bits_to_float(load_u16(b + 108)) * static_cast<float>((low | high << 4) - 32);
        out.offset = -4 * out.scale;
    }
    return out;
}

// Eight elements of F32, F16 or BF16 weights, as stored.
template <WeightType kType>
struct Floats8 {
    // i: first element, a multiple of 8.
    __device__ Floats8(const uint8_t* row, int i) {
#pragma unroll
        for (int k = 0; k < kFours; ++k) {
            fours[k] = *(reinterpret_cast<const uint4*>(row) + i / 8 * kFours + k);
        }
    }
    Floats8() = default;

    __device__ void unpack(float* out) const {
        const auto put = [&](int k, unsigned word) {
            if constexpr (kType == WeightType::F32) {
                out[k] = __uint_as_float(word);
            } else if constexpr (kType == WeightType::F16) {
                const float2 pair = __half22float2(halves(word));
                out[2 * k] = pair.x;
                out[2 * k + 1] = pair.y;
            } else {
                out[2 * k] = __uint_as_float(word << 16);
                out[2 * k + 1] = __uint_as_float(word & 0xffff0000u);
            }
        };
#pragma unroll
        for (int k = 0; k < kFours; ++k) {
            put(4 * k, fours[k].x);
            put(4 * k + 1, fours[k].y);
            put(4 * k + 2, fours[k].z);
            put(4 * k + 3, fours[k].w);
        }
    }

    static constexpr int kFours = kType == WeightType::F32 ? 2 : 1;
    uint4 fours[kFours];
};

// Dequantizes elements [i, i + 8) of a row of weights; i is a multiple of 8.
template <WeightType kType>
__device__ inline void decode8(const uint8_t* row, int i, float* out) {
    if constexpr (is_float(kType)) {
        Floats8<kType>(row, i).unpack(out);
    } else {
        codes8<kType>(row, i).unpack(out);
    }
}

// Dequantizes eight codes to halves.
__device__ inline uint4 to_halves(const unsigned (&words)[2], __half2 scale, __half2 offset,
                                  unsigned upper = kUpperBytes) {
    const auto pair = [&](unsigned word, unsigned select) {
        return bits(__hfma2(bytes_to_halves(word, select, 0, upper), scale, offset));
    };
    return make_uint4(pair(words[0], 0x4140), pair(words[0], 0x4342), pair(words[1], 0x4140), pair(words[1], 0x4342));
}

// The same of codes with a fixed middle: (code - kMiddle) scale.
template <int kMiddle>
__device__ inline uint4 centred_to_halves(const unsigned (&words)[2], __half2 scale, unsigned upper) {
    const auto pair = [&](unsigned word, unsigned select) {
        return bits(__hmul2(bytes_to_halves(word, select, kMiddle, upper), scale));
    };
    return make_uint4(pair(words[0], 0x4140), pair(words[0], 0x4342), pair(words[1], 0x4140), pair(words[1], 0x4342));
}

// The same of lower (kHalf = 0) or upper nibbles, which are not shifted, but multiplied by 1/16, which is exact.
template <int kHalf>
__device__ inline uint4 nibbles_to_halves(const unsigned (&words)[2], __half2 scale, __half2 offset, unsigned upper) {
    if constexpr (kHalf == 0) {
        return to_halves({words[0] & 0x0f0f0f0fu, words[1] & 0x0f0f0f0fu}, scale, offset, upper);
    } else {
        const auto pair = [&](unsigned word, unsigned select) {
            const __half2 sixteenfold = halves(__byte_perm(word & 0xf0f0f0f0u, upper, select));
            const __half2 code = __hfma2(sixteenfold, __float2half2_rn(1.0f / 16), __float2half2_rn(-1024.0f / 16));
            return bits(__hfma2(code, scale, offset));
        };
        return make_uint4(pair(words[0], 0x4140), pair(words[0], 0x4342), pair(words[1], 0x4140),
                          pair(words[1], 0x4342));
    }
}

__device__ inline uint4 to_halves(const Codes8& codes) {
    return to_halves(codes.words, __float2half2_rn(codes.scale), __float2half2_rn(codes.offset));
}

// Dequantizes elements [i, i + 8) of a row of weights to halves.
template <WeightType kType, Space kSpace = Space::global>
__device__ inline uint4 decode8_halves(const uint8_t* row, int i) {
    if constexpr (kType == WeightType::F16) {
        return *(reinterpret_cast<const uint4*>(row) + i / 8);
    } else if constexpr (is_float(kType)) {
        float x[8];
        decode8<kType>(row, i, x);
        return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
    } else {
        return to_halves(codes8<kType, kSpace>(row, i));
    }
}

}  // namespace lk::cuda
