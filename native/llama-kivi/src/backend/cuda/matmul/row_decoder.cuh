// Dequantizes weights in shared memory to halves, per lane of tile.cu.
#pragma once

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/device/words.cuh"
#include "backend/cuda/matmul/weights.cuh"
#include "quant/blocks.h"

namespace lk::cuda {

namespace {

// A lane's elements of a step: [i, i + 8) of two chunks of 32, in rows g, g + 8, ... of the kRows rows of its warp.
// Four lanes have the same rows. K-quants: each scale is decoded once per warp and shuffled to the lanes that need it.
template <WeightType kType, int kRows, int kPitch>
class RowDecoder {
    static constexpr bool kLoads = kType == WeightType::Q4_K || kType == WeightType::Q6_K || kType == WeightType::Q8_0;

public:
    // The step's bytes of a row of the lane's warp.
    struct Lane {
        const uint8_t* row;     // row g
        const uint8_t* scales;  // row scale_row()
        int i;
    };

    // kUpperBytes in a register that the compiler does not know to be constant: as a constant it becomes an operand of
    // each __byte_perm, whose selector then needs an instruction of its own. The number of threads is a power of two.
    __device__ static unsigned upper_bytes() { return kUpperBytes + (threadIdx.x & blockDim.x); }

    // Row of the warp whose scales the lane decodes; other rows follow at distances of kScaleRows.
    __device__ static int scale_row() { return threadIdx.x % kScaleRows; }

    // upper: upper_bytes().
    __device__ void begin(const Lane& lane, unsigned upper) {
        lane_ = lane;
        upper_ = upper;
        if constexpr (kPairs) {
#pragma unroll
            for (int s = 0; s < kSlots; ++s) {
                const uint8_t* const row = lane.scales + s * kScaleRows * kPitch;
                const PairScales pair(*reinterpret_cast<const uint4*>(row), lane.i / 64);
                const __half2 scales = pair.half_scales();
                const __half2 offsets = pair.half_offsets();
                scales_[s][0] = bits(__lows2half2(scales, offsets));
                scales_[s][1] = bits(__highs2half2(scales, offsets));
            }
        } else if constexpr (kType == WeightType::Q8_0) {
            blocks_ = lane.row + lane.i / 32 * kBlockBytes;
            codes_[0] = EvenAddress(blocks_ + 2 + lane.i % 32);
            codes_[1] = EvenAddress(blocks_ + kBlockBytes + 2 + lane.i % 32);
        } else if constexpr (kType == WeightType::Q6_K) {
            const int part = lane.i / 128;
            codes_[0] = EvenAddress(lane.row + part * 64 + lane.i % 32);
            codes_[1] = codes_[0];  // upper bits
            codes_[1].aligned += 128 - part * 32;
            // Lanes 16 to 31 decode the scales of the chunks' second halves.
            const unsigned select = threadIdx.x % 32 < 16 ? 0x4240 : 0x4341;
#pragma unroll
            for (int s = 0; s < kSlots; ++s) {
                const uint8_t* const row = lane.scales + s * kScaleRows * kPitch;
                const unsigned codes = load_u32(row + 192 + lane.i / 64 * 4) ^ 0x80808080u;
                const __half2 d = __half2half2(__ushort_as_half(load_u16(row + 208)));
                scales_[s][0] = bits(__hmul2(bytes_to_halves(codes, select, 128), d));
            }
        }
    }

    // Shuffles each scale to its own lane: the compiler does not move a shuffle, and so decodes the scales here and not
    // where they are used, at the end of a step.
    __device__ void settle() {
        if constexpr (kPairs || kType == WeightType::Q6_K) {
#pragma unroll
            for (int s = 0; s < kSlots; ++s) {
                scales_[s][0] = __shfl_sync(kAllLanes, scales_[s][0], threadIdx.x % 32);
                if constexpr (kPairs) {
                    scales_[s][1] = __shfl_sync(kAllLanes, scales_[s][1], threadIdx.x % 32);
                }
            }
        }
    }

    // Dequantizes a chunk of rows g + 16 kTile and g + 16 kTile + 8.
    template <int kChunk, int kTile>
    __device__ void decode(uint4 (&out)[2]) const {
        decode<kChunk, kTile>(load<kChunk, kTile>(), out);
    }

private:
    static constexpr bool kPairs = kType == WeightType::Q4_K || kType == WeightType::Q5_K;
    // Rows whose scales a warp decodes at a time: one per lane; Q6_K has two scales per row and chunk.
    static constexpr int kScaleRows = kType == WeightType::Q6_K ? 16 : 32;
    static constexpr int kSlots = kRows / kScaleRows;
    static constexpr int kBlockBytes = sizeof(BlockQ8_0);

    // Codes of a chunk of rows g + 16 kTile and g + 16 kTile + 8, as they are stored; of types without kLoads, nothing.
    struct Codes {
        unsigned words[kLoads ? 2 : 1][2];
        unsigned more[kLoads ? 2 : 1][2];  // Q6_K: the upper bits; Q8_0: the scale
    };

    // The first half of decode.
    template <int kChunk, int kTile>
    __device__ Codes load() const {
        Codes codes{};
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const int distance = 8 * (2 * kTile + k) * kPitch;
            if constexpr (kType == WeightType::Q4_K) {
                const uint2 both =
                    *reinterpret_cast<const uint2*>(lane_.row + distance + 16 + lane_.i / 64 * 32 + lane_.i % 32);
                codes.words[k][0] = both.x;
                codes.words[k][1] = both.y;
            } else if constexpr (kType == WeightType::Q6_K) {
                const int shift = lane_.i % 128 / 64 * 4;
                codes_[0].load(distance + kChunk * 32, codes.words[k], shift);
                codes_[1].load(distance, codes.more[k], shift + 2 * kChunk);
            } else if constexpr (kType == WeightType::Q8_0) {
                codes_[kChunk].load(distance, codes.words[k]);
                codes.more[k][0] = load_u16(blocks_ + (distance + kChunk * kBlockBytes));
            }
        }
        return codes;
    }

    template <int kChunk, int kTile>
    __device__ void decode(const Codes& codes, uint4 (&out)[2]) const {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const int r = 2 * kTile + k;
            [[maybe_unused]] const uint8_t* const row = lane_.row + 8 * r * kPitch;
            if constexpr (kPairs) {
                const int source = 8 * (r % 4) + threadIdx.x % 32 / 4;
                const __half2 both = halves(__shfl_sync(kAllLanes, scales_[r / 4][kChunk], source));
                const __half2 scale = __low2half2(both);
                const __half2 offset = __high2half2(both);
                if constexpr (kType == WeightType::Q4_K) {
                    out[k] = nibbles_to_halves<kChunk>(codes.words[k], scale, offset, upper_);
                } else {
                    out[k] = decode_half_pair<true, kChunk>(row, lane_.i, scale, offset, upper_);
                }
            } else if constexpr (kType == WeightType::Q6_K) {
                const int source = lane_.i % 32 / 16 * 16 + 8 * (r % 2) + threadIdx.x % 32 / 4;
                const __half2 both = halves(__shfl_sync(kAllLanes, scales_[r / 2][0], source));
                out[k] = decode6(codes.words[k], codes.more[k], kChunk == 0 ? __low2half2(both) : __high2half2(both));
            } else if constexpr (kType == WeightType::Q8_0) {
                const unsigned(&words)[2] = codes.words[k];
                const __half2 scale = __half2half2(__ushort_as_half(static_cast<uint16_t>(codes.more[k][0])));
                out[k] = centred_to_halves<128>({words[0] ^ 0x80808080u, words[1] ^ 0x80808080u}, scale, upper_);
            } else {
                out[k] = decode8_halves<kType, Space::shared>(row, lane_.i + 32 * kChunk);
            }
        }
    }

    __device__ uint4 decode6(const unsigned (&low)[2], const unsigned (&high)[2], __half2 scale) const {
        const auto codes = [&](int w) { return (low[w] & 0x0f0f0f0fu) | (high[w] & 0x03030303u) << 4; };
        return centred_to_halves<32>({codes(0), codes(1)}, scale, upper_);
    }

    Lane lane_;
    unsigned upper_;
    const uint8_t* blocks_;       // Q8_0: the lane's first block of row g
    EvenAddress codes_[2];        // of row g. Q8_0: per chunk; Q6_K: lower and upper bits
    unsigned scales_[kSlots][2];  // per chunk: scale and offset; Q6_K: the scales of both chunks in [0]
};

}  // namespace

}  // namespace lk::cuda
