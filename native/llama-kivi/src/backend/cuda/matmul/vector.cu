// GEMV: matmuls with one token, as in decoding a single sequence. They should be bound by memory bandwidth, so for
// low-bit weights the vector is quantized to 8 bits and dp4a multiplies four elements at once.
#include <algorithm>
#include <type_traits>

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/device/words.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"
#include "quant/blocks.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kRows = 2;  // per warp

__device__ uint2 load_codes8(const int8_t* p) {
    return *reinterpret_cast<const uint2*>(p);
}

__device__ uint4 load_codes16(const int8_t* p) {
    return *reinterpret_cast<const uint4*>(p);
}

// c plus the dot product of four signed bytes.
__device__ int dot4(unsigned a, unsigned b, int c) {
    return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
}

// The vector, in floats and in 8 bits.
struct Vector {
    const float* x;
    VectorCodes codes;
};

// ---- a lane's piece of a row: loading it, and its dot product with the vector. A lane prefetches kAhead pieces per
// row before the preceding kernels finish, and reads the others kUnroll at a time.

// Eight elements; the vector is in floats.
template <WeightType kType>
struct Piece {
    static constexpr int kElements = 8;
    static constexpr int kUnroll = kType == WeightType::F16 || kType == WeightType::BF16 ? 4 : 2;
    static constexpr int kAhead = kType == WeightType::F16 || kType == WeightType::BF16 ? 4 : 0;
    using Raw = std::conditional_t<is_float(kType), Floats8<kType>, Codes8>;

    __device__ static Raw load(const uint8_t* row, int piece) {
        if constexpr (is_float(kType)) {
            return Raw(row, piece * 8);
        } else {
            return codes8<kType>(row, piece * 8);
        }
    }

    __device__ static float dot(const Raw& raw, int piece, const Vector& v) {
        const float4 u = *reinterpret_cast<const float4*>(v.x + piece * 8);
        const float4 w = *reinterpret_cast<const float4*>(v.x + piece * 8 + 4);
        float a[8];
        raw.unpack(a);
        return a[0] * u.x + a[1] * u.y + a[2] * u.z + a[3] * u.w + a[4] * w.x + a[5] * w.y + a[6] * w.z + a[7] * w.w;
    }
};

// Eight code bytes of a block of 32 elements, which is a scale followed by codes.
template <class Block>
struct PieceOfBlock {
    static constexpr int kPieces = (sizeof(Block) - 2) / 8;  // per block
    struct Raw {
        unsigned w[2];
        uint16_t d;
    };

    __device__ static Raw load(const uint8_t* row, int piece) {
        Raw raw;
        const uint8_t* const b = row + static_cast<size_t>(piece / kPieces) * sizeof(Block);
        load_words(b + 2 + piece % kPieces * 8, raw.w);
        raw.d = load_u16(b);
        return raw;
    }
};

// Eight elements.
template <>
struct Piece<WeightType::Q8_0> : PieceOfBlock<BlockQ8_0> {
    static constexpr int kElements = 8;
    static constexpr int kUnroll = 4;
    static constexpr int kAhead = 0;  // prefetching was slower
    __device__ static float dot(const Raw& raw, int piece, const Vector& x) {
        const uint2 v = load_codes8(x.codes.codes + piece * 8);
        const float scale = half_bits_to_float(raw.d) * x.codes.blocks[piece / 4].x;
        return scale * static_cast<float>(dot4(raw.w[0], v.x, dot4(raw.w[1], v.y, 0)));
    }
};

// Eight elements of the block's first half and eight of its second half.
template <>
struct Piece<WeightType::Q4_0> : PieceOfBlock<BlockQ4_0> {
    static constexpr int kElements = 16;
    static constexpr int kUnroll = 4;
    static constexpr int kAhead = 4;
    __device__ static float dot(const Raw& raw, int piece, const Vector& x) {
        const int block = piece / 2;
        const int at = piece % 2 * 8;
        const auto& w = raw.w;
        const uint2 low = load_codes8(x.codes.codes + block * 32 + at);
        const uint2 high = load_codes8(x.codes.codes + block * 32 + 16 + at);
        int sum = dot4(w[0] & 0x0f0f0f0fu, low.x, dot4(w[1] & 0x0f0f0f0fu, low.y, 0));
        sum = dot4(w[0] >> 4 & 0x0f0f0f0fu, high.x, dot4(w[1] >> 4 & 0x0f0f0f0fu, high.y, sum));
        const float2 v = x.codes.blocks[block];
        // Codes have an offset of 8; the first piece of a block subtracts it for both.
        return half_bits_to_float(raw.d) * (v.x * static_cast<float>(sum) - (at == 0 ? 8.0f * v.y : 0.0f));
    }
};

// Two sub-blocks of 32 that share their bytes: Q4_K and, with fifth bits in qh, Q5_K.
template <bool kFive>
struct PieceK {
    static constexpr int kElements = 64;
    static constexpr int kUnroll = 1;
    static constexpr int kAhead = 1;
    struct Raw {
        uint4 header;
        uint4 codes[2];
        uint4 fifth[kFive ? 2 : 1];
    };

    __device__ static Raw load(const uint8_t* row, int piece) {
        Raw raw;
        const uint8_t* const b = row + static_cast<size_t>(piece / 4) * (kFive ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        raw.header = *reinterpret_cast<const uint4*>(b);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            raw.codes[half] = *reinterpret_cast<const uint4*>(b + 16 + (kFive ? 32 : 0) + piece % 4 * 32 + half * 16);
            if constexpr (kFive) {
                raw.fifth[half] = *reinterpret_cast<const uint4*>(b + 16 + half * 16);
            }
        }
        return raw;
    }

    __device__ static float dot(const Raw& raw, int piece, const Vector& x) {
        const int pair = piece % 4;
        const PairScales scales(raw.header, pair);
        int low = 0;
        int high = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 w = raw.codes[half];
            const uint4 u = load_codes16(x.codes.codes + piece * 64 + half * 16);
            const uint4 v = load_codes16(x.codes.codes + piece * 64 + 32 + half * 16);
            const auto add = [&](unsigned codes, unsigned bits, unsigned of_low, unsigned of_high) {
                unsigned a = codes & 0x0f0f0f0fu;
                unsigned c = codes >> 4 & 0x0f0f0f0fu;
                if constexpr (kFive) {
                    a |= (bits >> 2 * pair & 0x01010101u) << 4;
                    c |= (bits >> (2 * pair + 1) & 0x01010101u) << 4;
                }
                low = dot4(a, of_low, low);
                high = dot4(c, of_high, high);
            };
            const uint4 fifth = kFive ? raw.fifth[kFive ? half : 0] : make_uint4(0, 0, 0, 0);
            add(w.x, fifth.x, u.x, v.x);
            add(w.y, fifth.y, u.y, v.y);
            add(w.z, fifth.z, u.z, v.z);
            add(w.w, fifth.w, u.w, v.w);
        }
        const float4 blocks = *reinterpret_cast<const float4*>(x.codes.blocks + 2 * piece);
        return scales.scale(0) * blocks.x * static_cast<float>(low) +
               scales.scale(1) * blocks.z * static_cast<float>(high) + scales.offset(0) * blocks.y +
               scales.offset(1) * blocks.w;
    }
};

template <>
struct Piece<WeightType::Q4_K> : PieceK<false> {};
template <>
struct Piece<WeightType::Q5_K> : PieceK<true> {};

// Eight elements of each quarter of half a super block; they share their bytes.
template <>
struct Piece<WeightType::Q6_K> {
    static constexpr int kElements = 32;
    static constexpr int kUnroll = 1;
    static constexpr int kAhead = 1;
    struct Raw {
        unsigned first[2];
        unsigned second[2];
        unsigned high[2];
        int8_t scales[4];
        uint16_t d;
    };

    __device__ static Raw load(const uint8_t* row, int piece) {
        Raw raw;
        const int part = piece % 8 / 4;
        const int at = piece % 4 * 8;
        const uint8_t* const b = row + static_cast<size_t>(piece / 8) * sizeof(BlockQ6_K);
        load_words(b + part * 64 + at, raw.first);
        load_words(b + part * 64 + 32 + at, raw.second);
        load_words(b + 128 + part * 32 + at, raw.high);
#pragma unroll
        for (int quarter = 0; quarter < 4; ++quarter) {
            raw.scales[quarter] = static_cast<int8_t>(b[192 + part * 8 + at / 16 + 2 * quarter]);
        }
        raw.d = load_u16(b + 208);
        return raw;
    }

    __device__ static float dot(const Raw& raw, int piece, const Vector& x) {
        const int begin = piece / 8 * 256 + piece % 8 / 4 * 128;
        float sum = 0;
#pragma unroll
        for (int quarter = 0; quarter < 4; ++quarter) {
            const uint2 v = load_codes8(x.codes.codes + begin + quarter * 32 + piece % 4 * 8);
            int total = 0;
#pragma unroll
            for (int word = 0; word < 2; ++word) {
                const unsigned low = (quarter % 2 == 0 ? raw.first : raw.second)[word] >> (quarter / 2 * 4);
                const unsigned w = (low & 0x0f0f0f0fu) | (raw.high[word] >> (2 * quarter) & 0x03030303u) << 4;
                const unsigned u = word == 0 ? v.x : v.y;
                total = dot4(w, u, total) - 32 * dot4(0x01010101u, u, 0);
            }
            sum += static_cast<float>(raw.scales[quarter]) * x.codes.blocks[begin / 32 + quarter].x *
                   static_cast<float>(total);
        }
        return half_bits_to_float(raw.d) * sum;
    }
};

template <WeightType kType>
__global__ void __launch_bounds__(kWarps * 32)
    multiply_vector_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const float* x,
                           VectorCodes codes) {
    const int which = product_of(products, blockIdx.x);
    const int n_rows = products.n_rows[which];
    const int first = ((blockIdx.x - products.first_block[which]) * kWarps + threadIdx.x / 32) * kRows;
    if (first >= n_rows) {
        return;
    }
    const uint8_t* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        rows[r] = products.w[which] + static_cast<size_t>(min(first + r, n_rows - 1)) * row_bytes;
    }
    using P = Piece<kType>;
    const int n_pieces = n_cols / P::kElements;
    int piece = threadIdx.x % 32;
    // Prefetch weights before the preceding kernels finish: no kernel writes them.
    typename P::Raw raw[std::max(1, P::kAhead)][kRows];
#pragma unroll
    for (int i = 0; i < P::kAhead; ++i) {
        if (piece + 32 * i < n_pieces) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                raw[i][r] = P::load(rows[r], piece + 32 * i);
            }
        }
    }
    after_previous();
    const Vector vector{x, codes};
    float sum[kRows] = {};
#pragma unroll
    for (int i = 0; i < P::kAhead; ++i) {
        if (piece + 32 * i < n_pieces) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                sum[r] += P::dot(raw[i][r], piece + 32 * i, vector);
            }
        }
    }
#pragma unroll(P::kUnroll)
    for (piece += 32 * P::kAhead; piece < n_pieces; piece += 32) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            sum[r] += P::dot(P::load(rows[r], piece), piece, vector);
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const float total = warp_sum(sum[r]);
        if (threadIdx.x % 32 == 0 && first + r < n_rows) {
            float* const y = products.y[which] + first + r;
            *y = products.add[which] ? *y + total : total;
        }
    }
}

}  // namespace

void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, Stream& stream) {
    const int n_blocks = count_blocks(products, kWarps * kRows);
    dispatch("matmul with one token", type, [&](auto t) {
        queue(multiply_vector_kernel<decltype(t)::value>, n_blocks, kWarps * 32, 0, stream, products, row_bytes, n_cols,
              x, codes);
    });
}

}  // namespace lk::cuda
