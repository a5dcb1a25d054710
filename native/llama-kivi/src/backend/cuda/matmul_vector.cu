// Products with one column: a generation's of one sequence. Reading the weights is all there should be to do, so that the
// vector is taken in 8 bits where the weights have few, and four elements are multiplied at once.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.cuh"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kRows = 2;  // of a warp

__device__ uint2 load_codes8(const int8_t* p) {
    return *reinterpret_cast<const uint2*>(p);
}

__device__ uint4 load_codes16(const int8_t* p) {
    return *reinterpret_cast<const uint4*>(p);
}

// c plus the products of four signed bytes of each.
__device__ int dot4(unsigned a, unsigned b, int c) {
    return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
}

// ---- a lane's piece of a row: what it gives in the product with the vector's codes

template <WeightType kType>
struct Piece;

// Eight elements of a block of 32.
template <>
struct Piece<WeightType::Q8_0> {
    static constexpr int kElements = 8;

    __device__ static float dot(const uint8_t* row, int piece, VectorCodes x) {
        const int block = piece / 4;
        const uint8_t* const b = row + static_cast<size_t>(block) * sizeof(BlockQ8_0);
        unsigned w[2];
        load_words(b + 2 + piece % 4 * 8, w);
        const uint2 v = load_codes8(x.codes + piece * 8);
        const float scale = half_bits_to_float(load_u16(b)) * x.blocks[block].x;
        return scale * static_cast<float>(dot4(w[0], v.x, dot4(w[1], v.y, 0)));
    }
};

// Eight bytes of a block of 32: as many elements of its first half and of its second.
template <>
struct Piece<WeightType::Q4_0> {
    static constexpr int kElements = 16;

    __device__ static float dot(const uint8_t* row, int piece, VectorCodes x) {
        const int block = piece / 2;
        const int at = piece % 2 * 8;
        const uint8_t* const b = row + static_cast<size_t>(block) * sizeof(BlockQ4_0);
        unsigned w[2];
        load_words(b + 2 + at, w);
        const uint2 low = load_codes8(x.codes + block * 32 + at);
        const uint2 high = load_codes8(x.codes + block * 32 + 16 + at);
        int sum = dot4(w[0] & 0x0f0f0f0fu, low.x, dot4(w[1] & 0x0f0f0f0fu, low.y, 0));
        sum = dot4(w[0] >> 4 & 0x0f0f0f0fu, high.x, dot4(w[1] >> 4 & 0x0f0f0f0fu, high.y, sum));
        const float2 v = x.blocks[block];
        // Codes are 8 too high; one of the block's two pieces makes that good.
        return half_bits_to_float(load_u16(b)) * (v.x * static_cast<float>(sum) - (at == 0 ? 8.0f * v.y : 0.0f));
    }
};

// Two sub-blocks of 32, which share their bytes: Q4_K and, with the fifth bits in qh, Q5_K.
template <bool kFive>
struct PieceK {
    static constexpr int kElements = 64;

    __device__ static float dot(const uint8_t* row, int piece, VectorCodes x) {
        const int pair = piece % 4;
        const uint8_t* const b =
            row + static_cast<size_t>(piece / 4) * (kFive ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        const PairScales scales(*reinterpret_cast<const uint4*>(b), pair);
        int low = 0;
        int high = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 w =
                *reinterpret_cast<const uint4*>(b + 16 + (kFive ? 32 : 0) + pair * 32 + half * 16);
            uint4 fifth = make_uint4(0, 0, 0, 0);
            if constexpr (kFive) {
                fifth = *reinterpret_cast<const uint4*>(b + 16 + half * 16);
            }
            const uint4 u = load_codes16(x.codes + piece * 64 + half * 16);
            const uint4 v = load_codes16(x.codes + piece * 64 + 32 + half * 16);
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
            add(w.x, fifth.x, u.x, v.x);
            add(w.y, fifth.y, u.y, v.y);
            add(w.z, fifth.z, u.z, v.z);
            add(w.w, fifth.w, u.w, v.w);
        }
        const float4 blocks = *reinterpret_cast<const float4*>(x.blocks + 2 * piece);
        return scales.scale(0) * blocks.x * static_cast<float>(low) + scales.scale(1) * blocks.z * static_cast<float>(high) +
               scales.offset(0) * blocks.y + scales.offset(1) * blocks.w;
    }
};

template <>
struct Piece<WeightType::Q4_K> : PieceK<false> {};
template <>
struct Piece<WeightType::Q5_K> : PieceK<true> {};

// Eight elements of each quarter of half a super block, which share their bytes.
template <>
struct Piece<WeightType::Q6_K> {
    static constexpr int kElements = 32;

    __device__ static float dot(const uint8_t* row, int piece, VectorCodes x) {
        const int part = piece % 8 / 4;
        const int at = piece % 4 * 8;
        const uint8_t* const b = row + static_cast<size_t>(piece / 8) * sizeof(BlockQ6_K);
        unsigned first[2];
        unsigned second[2];
        unsigned high[2];
        load_words(b + part * 64 + at, first);
        load_words(b + part * 64 + 32 + at, second);
        load_words(b + 128 + part * 32 + at, high);
        const int8_t* const scales = reinterpret_cast<const int8_t*>(b + 192 + part * 8 + at / 16);
        const int begin = piece / 8 * 256 + part * 128;
        float sum = 0;
#pragma unroll
        for (int quarter = 0; quarter < 4; ++quarter) {
            const uint2 v = load_codes8(x.codes + begin + quarter * 32 + at);
            int total = 0;
#pragma unroll
            for (int word = 0; word < 2; ++word) {
                const unsigned low = (quarter % 2 == 0 ? first : second)[word] >> (quarter / 2 * 4);
                const unsigned w = (low & 0x0f0f0f0fu) | (high[word] >> (2 * quarter) & 0x03030303u) << 4;
                const unsigned u = word == 0 ? v.x : v.y;
                total = dot4(w, u, total) - 32 * dot4(0x01010101u, u, 0);
            }
            sum += static_cast<float>(scales[2 * quarter]) * x.blocks[begin / 32 + quarter].x *
                   static_cast<float>(total);
        }
        return half_bits_to_float(load_u16(b + 208)) * sum;
    }
};

constexpr bool has_pieces(WeightType type) {
    return type == WeightType::Q8_0 || type == WeightType::Q4_0 || type == WeightType::Q4_K ||
           type == WeightType::Q5_K || type == WeightType::Q6_K;
}

// What a lane does with kRows rows: in the codes of the vector, or in floats, eight elements at a time.
template <WeightType kType>
__device__ void multiply_rows(const uint8_t* const (&rows)[kRows], int n_cols, const float* x, VectorCodes codes,
                              float (&sum)[kRows]) {
    const int lane = threadIdx.x % 32;
    if constexpr (has_pieces(kType)) {
        const int n_pieces = n_cols / Piece<kType>::kElements;
#pragma unroll(Piece<kType>::kElements >= 32 ? 1 : 4)
        for (int piece = lane; piece < n_pieces; piece += 32) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                sum[r] += Piece<kType>::dot(rows[r], piece, codes);
            }
        }
    } else {
#pragma unroll(kType == WeightType::F16 || kType == WeightType::BF16 ? 4 : 2)
        for (int i = lane * 8; i < n_cols; i += 256) {
            float a[kRows][8];
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                decode8<kType>(rows[r], i, a[r]);
            }
            const float4 u = *reinterpret_cast<const float4*>(x + i);
            const float4 v = *reinterpret_cast<const float4*>(x + i + 4);
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                sum[r] += a[r][0] * u.x + a[r][1] * u.y + a[r][2] * u.z + a[r][3] * u.w + a[r][4] * v.x +
                          a[r][5] * v.y + a[r][6] * v.z + a[r][7] * v.w;
            }
        }
    }
}

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
    after_previous();
    float sum[kRows] = {};
    multiply_rows<kType>(rows, n_cols, x, codes, sum);
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

bool wants_codes(WeightType type) {
    return has_pieces(type);
}

void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, cudaStream_t stream) {
    const int n_blocks = count_blocks(products, kWarps * kRows);
    dispatch(type, [&](auto t) {
        queue(multiply_vector_kernel<decltype(t)::value>, n_blocks, kWarps * 32, 0, stream, products, row_bytes, n_cols, x,
              codes);
    });
}

}  // namespace lk::cuda
