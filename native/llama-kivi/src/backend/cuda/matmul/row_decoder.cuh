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

// A lane's elements of a step: [i, i + 8) of two chunks of 32, in rows g, g + 8, g + 16 and g + 24 of its warp.
template <WeightType kType>
class RowDecoder {
public:
    __device__ void begin(const uint8_t* const (&rows)[4], int i) {
        i_ = i;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            rows_[r] = rows[r];
        }
        if constexpr (kPairs) {
            // Four lanes have the same rows; each decodes the scales of one row.
            const PairScales scales(*reinterpret_cast<const uint4*>(own_row(rows)), i / 64);
            const unsigned scale = bits(scales.half_scales());
            const unsigned offset = bits(scales.half_offsets());
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                scales_[r] = halves(__shfl_sync(kAllLanes, scale, sharing_lane(r)));
                offsets_[r] = halves(__shfl_sync(kAllLanes, offset, sharing_lane(r)));
            }
        } else if constexpr (kType == WeightType::Q6_K) {
            // The same; two lanes need the scales of the chunks' first half, two those of the second half.
            const uint8_t* const own = own_row(rows);
            unsigned bytes[1];
            load_words<Space::shared>(own + 192 + i / 64 * 4, bytes);
            const __half2 d = __half2half2(__ushort_as_half(load_u16(own + 208)));
            const unsigned first = bits(__hmul2(bytes_to_halves(bytes[0] ^ 0x80808080u, 0x4240, 128), d));
            const unsigned second = bits(__hmul2(bytes_to_halves(bytes[0] ^ 0x80808080u, 0x4341, 128), d));
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const unsigned of_first = __shfl_sync(kAllLanes, first, sharing_lane(r));
                const unsigned of_second = __shfl_sync(kAllLanes, second, sharing_lane(r));
                scales_[r] = halves(i % 32 < 16 ? of_first : of_second);
            }
        }
    }

    template <int kChunk>
    __device__ void decode(uint4 (&out)[4]) const {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            if constexpr (kPairs) {
                out[r] = decode_half_pair<kType == WeightType::Q5_K, kChunk>(rows_[r], i_, scales_[r], offsets_[r]);
            } else if constexpr (kType == WeightType::Q6_K) {
                const int part = i_ / 128;
                const int shift = i_ % 128 / 64 * 4;
                unsigned low[2];
                unsigned high[2];
                load_words<Space::shared>(rows_[r] + part * 64 + kChunk * 32 + i_ % 32, low);
                load_words<Space::shared>(rows_[r] + 128 + part * 32 + i_ % 32, high);
                const __half2 scale = kChunk == 0 ? __low2half2(scales_[r]) : __high2half2(scales_[r]);
                const auto pair = [&](int w, unsigned select) {
                    const unsigned codes =
                        (low[w] >> shift & 0x0f0f0f0fu) | (high[w] >> (shift + 2 * kChunk) & 0x03030303u) << 4;
                    return bits(__hmul2(bytes_to_halves(codes, select, 32), scale));
                };
                out[r] = make_uint4(pair(0, 0x4140), pair(0, 0x4342), pair(1, 0x4140), pair(1, 0x4342));
            } else {
                out[r] = decode8_halves<kType, Space::shared>(rows_[r], i_ + 32 * kChunk);
            }
        }
    }

private:
    __device__ static const uint8_t* own_row(const uint8_t* const (&rows)[4]) {
        const int j = threadIdx.x % 4;
        return j < 2 ? (j == 0 ? rows[0] : rows[1]) : j == 2 ? rows[2] : rows[3];
    }
    // The lane that decodes the scales of this lane's row r.
    __device__ static int sharing_lane(int r) {
        return threadIdx.x % 32 / 4 * 4 + r;
    }

    static constexpr bool kPairs = kType == WeightType::Q4_K || kType == WeightType::Q5_K;
    int i_;
    const uint8_t* rows_[4];
    __half2 scales_[4];  // per row, for both chunks
    __half2 offsets_[4];
};

}  // namespace

}  // namespace lk::cuda
