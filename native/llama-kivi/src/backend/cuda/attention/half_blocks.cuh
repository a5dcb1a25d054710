// Attention of one query row over full-precision rows, some of them in a q8_0 ring: a lane has 16 channels of a token,
// half a block, so that a block's scale is read twice and not once per few channels.
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/device/words.cuh"

namespace lk::cuda {

namespace {

// Channels [16 part, 16 part + 16) of a row as stored.
struct HalfBlock {
    static constexpr int kChannels = 16;
    unsigned words[8];  // halves, or in the first four codes
    uint16_t scale;
    bool in_blocks;

    __device__ HalfBlock() = default;
    __device__ HalfBlock(ExactRow row, int part) : in_blocks(row.in_blocks()) {
        if (in_blocks) {
            const uint8_t* const block = row.bytes() + part / 2 * (2 + 32);
            unsigned codes[4];
            load_words(block + 2 + part % 2 * 16, codes);
            scale = load_u16(block);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                words[i] = codes[i];
            }
        } else {
            const uint4* const from = reinterpret_cast<const uint4*>(row.bytes() + part * 32);
            const uint4 low = from[0];
            const uint4 high = from[1];
            words[0] = low.x, words[1] = low.y, words[2] = low.z, words[3] = low.w;
            words[4] = high.x, words[5] = high.y, words[6] = high.z, words[7] = high.w;
        }
    }

    // Decodes the channels without the scale of their block, and returns the scale.
    __device__ float decode(float (&x)[kChannels]) const {
        if (!in_blocks) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float2 pair = __half22float2(halves(words[i]));
                x[2 * i] = pair.x;
                x[2 * i + 1] = pair.y;
            }
            return 1;
        }
        // Byte b in the mantissa of 2^23 is the float 2^23 + b.
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
            const unsigned word = words[i / 4] ^ 0x80808080u;
            x[i] = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440 | i % 4)) - (8388608.0f + 128);
        }
        return half_bits_to_float(scale);
    }
};

// 32 tokens of a warp. kLanes lanes share a token; kTogether tokens are read at once.
template <int kD>
struct HalfBlocks {
    static constexpr int kChannels = HalfBlock::kChannels;
    static constexpr int kLanes = kD / kChannels;
    static constexpr int kTogether = 32 / kLanes;
    static constexpr int kBatch = 2;  // reads in flight
    int lane;

    // Score of the lane's own token. row: its row. q: the lane's channels.
    __device__ float score(unsigned long long row, const float (&q)[kChannels]) const {
        float own = 0;
#pragma unroll 1
        for (int first = 0; first < kLanes; first += kBatch) {
            HalfBlock k[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                const int token = kTogether * (first + i) + lane / kLanes;
                k[i] = HalfBlock(ExactRow(__shfl_sync(kAllLanes, row, token)), lane % kLanes);
            }
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                float x[kChannels];
                const float scale = k[i].decode(x);
                float dot = 0;
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    dot += x[c] * q[c];
                }
                dot *= scale;
#pragma unroll
                for (int offset = 1; offset < kLanes; offset *= 2) {
                    dot += __shfl_xor_sync(kAllLanes, dot, offset);
                }
                const float mine = __shfl_sync(kAllLanes, dot, lane % kTogether * kLanes);
                own = lane / kTogether == first + i ? mine : own;
            }
        }
        return own;
    }

    // Adds the values of 32 tokens to the lane's channels. weight: of the lane's own token.
    __device__ void add(unsigned long long row, float weight, float (&out)[kChannels]) const {
#pragma unroll 1
        for (int first = 0; first < kLanes; first += kBatch) {
            HalfBlock v[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                const int token = kTogether * (first + i) + lane / kLanes;
                v[i] = HalfBlock(ExactRow(__shfl_sync(kAllLanes, row, token)), lane % kLanes);
            }
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                float x[kChannels];
                const int token = kTogether * (first + i) + lane / kLanes;
                const float p = v[i].decode(x) * __shfl_sync(kAllLanes, weight, token);
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    out[c] += p * x[c];
                }
            }
        }
    }

    // Sums the lanes that share channels, and leaves channels [lane * kCh, lane * kCh + kCh) in each lane.
    template <int kCh>
    __device__ void spread(float (&out)[kChannels], float (&own)[kCh]) const {
        constexpr int kParts = kChannels / kCh;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
            for (int offset = kLanes; offset < 32; offset *= 2) {
                out[c] += __shfl_xor_sync(kAllLanes, out[c], offset);
            }
            const float x = __shfl_sync(kAllLanes, out[c], lane / kParts);
            own[c % kCh] = lane % kParts == c / kCh ? x : own[c % kCh];
        }
    }
};

}  // namespace

}  // namespace lk::cuda
