// Channels of rows as a cache stores them: halves, or blocks of q8_0 or q4_0.
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/device/words.cuh"

namespace lk::cuda {

namespace {

// Channels [c, c + kCount) of a row as stored; c is a multiple of kCount.
template <int kBits, int kCount>
struct Channels {
    static constexpr int kWords = kBits == 16 ? kCount / 2 : (kCount + 3) / 4;
    unsigned words[kWords];
    uint16_t scale = 0;  // q8_0, q4_0: scale of the block
    int shift = 0;

    __device__ Channels() = default;

    __device__ Channels(const uint8_t* row, int c) {
        if constexpr (kBits == 16) {
            const uint8_t* const p = row + 2 * c;
            if constexpr (kCount == 8) {
                const uint4 w = *reinterpret_cast<const uint4*>(p);
                words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
            } else if constexpr (kCount == 4) {
                const uint2 w = *reinterpret_cast<const uint2*>(p);
                words[0] = w.x, words[1] = w.y;
            } else {
                words[0] = *reinterpret_cast<const unsigned*>(p);
            }
        } else {
            const uint8_t* const block = row + c / 32 * (2 + 4 * kBits);
            const uint8_t* const p = block + 2 + c % (4 * kBits);
            scale = load_u16(block);
            shift = c % 32 / (4 * kBits) * 4;
            if constexpr (kCount == 8) {
                load_words(p, words);
            } else {
                words[0] = kCount == 4 ? load_u32(p) : load_u16(p);
            }
        }
    }

    // Decodes channels of a block without their scale, and returns the scale.
    __device__ float decode(float (&x)[kCount]) const {
        if constexpr (kBits == 16) {
#pragma unroll
            for (int i = 0; i < kWords; ++i) {
                const float2 pair = __half22float2(halves(words[i]));
                x[2 * i] = pair.x;
                x[2 * i + 1] = pair.y;
            }
            return 1;
        } else {
            // Byte b in the mantissa of 2^23 is the float 2^23 + b.
            constexpr unsigned kMantissa = 0x4b000000u;
            constexpr float kLess = 8388608.0f + (kBits == 8 ? 128 : 8);
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                const unsigned word = kBits == 8 ? words[i / 4] ^ 0x80808080u : words[i / 4] >> shift & 0x0f0f0f0fu;
                x[i] = __uint_as_float(__byte_perm(word, kMantissa, 0x7440 | i % 4)) - kLess;
            }
            return half_bits_to_float(scale);
        }
    }
};

// The same of a full-precision row: halves, or blocks of a q8_0 ring.
template <int kCount>
struct RingChannels : Channels<16, kCount> {
    using Codes = Channels<8, kCount>;
    bool in_blocks = false;

    __device__ RingChannels() = default;

    __device__ RingChannels(ExactRow row, int c) : in_blocks(row.in_blocks()) {
        if (!in_blocks) {
            static_cast<Channels<16, kCount>&>(*this) = Channels<16, kCount>(row.bytes(), c);
            return;
        }
        const Codes codes(row.bytes(), c);
#pragma unroll
        for (int i = 0; i < Codes::kWords; ++i) {
            this->words[i] = codes.words[i];
        }
        this->scale = codes.scale;
    }

    __device__ float decode(float (&x)[kCount]) const {
        if (!in_blocks) {
            return Channels<16, kCount>::decode(x);
        }
        Codes codes;
#pragma unroll
        for (int i = 0; i < Codes::kWords; ++i) {
            codes.words[i] = this->words[i];
        }
        codes.scale = this->scale;
        return codes.decode(x);
    }
};

}  // namespace

}  // namespace lk::cuda
