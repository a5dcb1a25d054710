// Dequantizes weights in shared memory to halves, per lane of quantized_wgmma.cu. A row is a step of 256 elements.
#pragma once

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/device/words.cuh"
#include "quant/blocks.h"

namespace lk::cuda {

namespace {

__device__ __forceinline__ uint2 load_pair(const uint8_t* p) {
    return *reinterpret_cast<const uint2*>(p);
}

// Rows of Q4_K and Q5_K as the decoder reads them: scales and offsets, one word per sub-block, replace the header
// (sub-blocks 0 to 3) and follow the codes (4 to 7).
template <bool kFive>
struct QuantizedRow4 {
    static constexpr int kCodes = 16 + (kFive ? 32 : 0);
    static constexpr int kMoreScales = kCodes + 128;

    // Of one row.
    __device__ static void prepare_scales(uint8_t* row, uint8_t*) {
        const uint4 header = *reinterpret_cast<const uint4*>(row);
        const __half2 d = __low2half2(halves(header.x));
        const __half2 least = __hneg2(__high2half2(halves(header.x)));
        const auto write = [&](int to, unsigned scales, unsigned minima) {
            uint4 words;
            const auto pair = [&](unsigned select, unsigned& low, unsigned& high) {
                const __half2 scale = __hmul2(bytes_to_halves(scales, select), d);
                const __half2 offset = __hmul2(bytes_to_halves(minima, select), least);
                low = bits(__lows2half2(scale, offset));
                high = bits(__highs2half2(scale, offset));
            };
            pair(0x4140, words.x, words.y);
            pair(0x4342, words.z, words.w);
            *reinterpret_cast<uint4*>(row + to) = words;
        };
        write(0, header.y & 0x3f3f3f3fu, header.z & 0x3f3f3f3fu);
        write(kMoreScales, (header.w & 0x0f0f0f0fu) | (header.y >> 2 & 0x30303030u),
              (header.w >> 4 & 0x0f0f0f0fu) | (header.z >> 2 & 0x30303030u));
    }

    // What a lane needs of 64 elements of a row: elements [8 j, 8 j + 8) of both chunks of 32.
    struct Codes {
        uint2 words;
        uint2 scales;  // of both chunks: scale and offset
        uint2 fifth;   // Q5_K
    };

    template <int kPanel>
    __device__ __forceinline__ static void load(const uint8_t* row, const uint8_t*, int j, Codes& codes) {
        codes.words = load_pair(row + kCodes + 32 * kPanel + 8 * j);
        codes.scales = load_pair(row + (kPanel < 2 ? 8 * kPanel : kMoreScales + 8 * (kPanel - 2)));
        if constexpr (kFive) {
            codes.fifth = load_pair(row + 16 + 8 * j);
        }
    }

    template <int kPanel, int kHalf>
    __device__ __forceinline__ static uint4 decode(const Codes& codes, unsigned upper) {
        const __half2 both = halves(kHalf == 0 ? codes.scales.x : codes.scales.y);
        const __half2 scale = __low2half2(both);
        const __half2 offset = __high2half2(both);
        if constexpr (kFive) {
            const auto bytes = [](unsigned word, unsigned fifth) {
                constexpr int kShift = 2 * kPanel + kHalf - 4;
                const unsigned bit = (kShift >= 0 ? fifth >> (kShift & 31) : fifth << (-kShift & 31)) & 0x10101010u;
                return ((kHalf == 0 ? word : word >> 4) & 0x0f0f0f0fu) | bit;
            };
            return to_halves({bytes(codes.words.x, codes.fifth.x), bytes(codes.words.y, codes.fifth.y)}, scale, offset,
                             upper);
        } else {
            return nibbles_to_halves<kHalf>({codes.words.x, codes.words.y}, scale, offset, upper);
        }
    }
};

// Rows of Q6_K. The decoded scales are in a place of their own: per 64 elements and each half of a chunk of 32, those
// of both chunks.
struct QuantizedRow6 {
    static constexpr int kScales = 192;
    static constexpr int kScale = 208;

    // row: of any even alignment.
    __device__ static void prepare_scales(const uint8_t* row, uint8_t* decoded) {
        const __half2 d = __half2half2(__ushort_as_half(load_u16(row + kScale)));
#pragma unroll
        for (int panel = 0; panel < 4; panel += 2) {
            const auto words = [&](int p, unsigned& low, unsigned& high) {
                const unsigned codes = load_u32(row + kScales + 4 * p) ^ 0x80808080u;
                low = bits(__hmul2(bytes_to_halves(codes, 0x4240, 128), d));
                high = bits(__hmul2(bytes_to_halves(codes, 0x4341, 128), d));
            };
            uint4 out;
            words(panel, out.x, out.y);
            words(panel + 1, out.z, out.w);
            *reinterpret_cast<uint4*>(decoded + 8 * panel) = out;
        }
    }

    struct Codes {
        unsigned low[2][2];  // of both chunks; the upper nibbles are of the same chunks of the next 64 elements
        unsigned high[2];    // of the 128 elements
        unsigned scales;     // of both chunks
    };

    template <int kPanel>
    __device__ __forceinline__ static void load(const uint8_t* row, const uint8_t* decoded, int j, Codes& codes) {
        if constexpr (kPanel % 2 == 0) {
            const EvenAddress at(row + 8 * j);
            at.load(32 * kPanel, codes.low[0]);
            at.load(32 * kPanel + 32, codes.low[1]);
            at.load(128 + 16 * kPanel, codes.high);
        }
        codes.scales = *reinterpret_cast<const unsigned*>(decoded + 8 * kPanel + j / 2 * 4);
    }

    template <int kPanel, int kHalf>
    __device__ __forceinline__ static uint4 decode(const Codes& codes, unsigned upper) {
        const __half2 both = halves(codes.scales);
        const __half2 scale = kHalf == 0 ? __low2half2(both) : __high2half2(both);
        const auto bytes = [&](int w) {
            constexpr int kQuarter = kPanel % 2 * 2 + kHalf;
            const unsigned nibbles = (kPanel % 2 == 0 ? codes.low[kHalf][w] : codes.low[kHalf][w] >> 4) & 0x0f0f0f0fu;
            const unsigned more =
                kQuarter < 2 ? codes.high[w] << (4 - 2 * kQuarter) : codes.high[w] >> (2 * kQuarter - 4);
            return nibbles | (more & 0x30303030u);
        };
        return centred_to_halves<32>({bytes(0), bytes(1)}, scale, upper);
    }
};

// Rows of Q8_0: eight blocks, which start at multiples of two bytes; the row starts at a multiple of 16.
struct QuantizedRow8 {
    static constexpr int kBlock = sizeof(BlockQ8_0);

    __device__ static void prepare_scales(const uint8_t*, uint8_t*) {}

    struct Codes {
        unsigned low[3];  // of an even block, with two bytes before and after them
        unsigned high[2];
        uint16_t scales[2];
    };

    template <int kPanel>
    __device__ __forceinline__ static void load(const uint8_t* row, const uint8_t*, int j, Codes& codes) {
        const uint8_t* const blocks = row + 2 * kPanel * kBlock;
        const auto* const low = reinterpret_cast<const unsigned*>(blocks + 8 * j);
        const auto* const high = reinterpret_cast<const unsigned*>(blocks + kBlock + 2 + 8 * j);
        codes.scales[0] = load_u16(blocks);
        codes.scales[1] = load_u16(blocks + kBlock);
#pragma unroll
        for (int w = 0; w < 3; ++w) {
            codes.low[w] = low[w];
        }
#pragma unroll
        for (int w = 0; w < 2; ++w) {
            codes.high[w] = high[w];
        }
    }

    template <int kPanel, int kHalf>
    __device__ __forceinline__ static uint4 decode(const Codes& codes, unsigned upper) {
        const __half2 scale = __half2half2(__ushort_as_half(codes.scales[kHalf]));
        const auto bytes = [&](int w) {
            const unsigned stored = kHalf == 0 ? __funnelshift_r(codes.low[w], codes.low[w + 1], 16) : codes.high[w];
            return stored ^ 0x80808080u;
        };
        return centred_to_halves<128>({bytes(0), bytes(1)}, scale, upper);
    }
};

template <WeightType kType>
struct QuantizedRow;
template <>
struct QuantizedRow<WeightType::Q8_0> : QuantizedRow8 {};
template <>
struct QuantizedRow<WeightType::Q6_K> : QuantizedRow6 {};
template <>
struct QuantizedRow<WeightType::Q4_K> : QuantizedRow4<false> {};
template <>
struct QuantizedRow<WeightType::Q5_K> : QuantizedRow4<true> {};

}  // namespace

}  // namespace lk::cuda
