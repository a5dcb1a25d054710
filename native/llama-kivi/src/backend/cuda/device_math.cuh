// Helpers shared by the kernels.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/plan/matmul_plan.h"
#include "base/finite.h"
#include "kv/scalar_codec.h"
#include "quant/blocks.h"

namespace lk::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float half_bits_to_float(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

__device__ inline uint16_t float_to_half_bits(float x) {
    return __half_as_ushort(__float2half_rn(x));
}

__device__ inline void report(int* broken, int place) {
    atomicCAS(broken, 0, place);
}

// Decodes a byte scale of the cache, without the head's power of two.
__device__ inline float byte_scale(unsigned byte) {
    return kv::byte_scale_base(byte);
}

__device__ inline float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline double warp_sum(double x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline int warp_sum(int x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ inline float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
}

// Sum over a block of up to 1024 threads, returned to every thread. scratch: 32 floats in shared memory.
__device__ inline float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    __syncthreads();  // an earlier call may still read scratch
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    const int n_warps = (blockDim.x + 31) / 32;
    return warp_sum(threadIdx.x % 32 < n_warps ? scratch[threadIdx.x % 32] : 0.0f);
}

// Packs two halves into a word, and back.
__device__ inline unsigned bits(__half2 x) {
    return *reinterpret_cast<const unsigned*>(&x);
}

__device__ inline __half2 halves(unsigned x) {
    return *reinterpret_cast<const __half2*>(&x);
}

__device__ inline unsigned pack(float low, float high) {
    return bits(__floats2half2_rn(low, high));
}

// d[16 x 8] += a[16 x 16] b[16 x 8] on tensor cores; a and b are halves, d floats. With g = lane / 4 and j = lane % 4,
// a lane has rows g and g + 8 of a and d, column g of b, and columns 2 j and 2 j + 1 of d. Of the inner dimension, a0,
// a1 and b0 have elements 2 j and 2 j + 1; a2, a3 and b1 have 2 j + 8 and 2 j + 9.
__device__ inline void multiply(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Copies 16 bytes to shared memory asynchronously.
__device__ inline void copy_async(void* shared, const void* global) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global));
}

__device__ inline void copy_commit() {
    asm volatile("cp.async.commit_group;\n" ::);
}

// Waits for this thread's asynchronous copies, except the last kPending groups.
template <int kPending>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

// Copies the first `bytes` of 16 bytes asynchronously; the others become zeros.
__device__ inline void copy_async_some(void* shared, const void* global, int bytes) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes));
}

__device__ inline uint16_t load_u16(const uint8_t* p) {
    return *reinterpret_cast<const uint16_t*>(p);
}

// Reads four bytes at an even address.
__device__ inline uint32_t load_u32(const uint8_t* p) {
    return load_u16(p) | static_cast<uint32_t>(load_u16(p + 2)) << 16;
}

enum class Space { global, shared };

// Reads kCount words at an even address. If it is not a multiple of four, the two bytes before and after are read too.
// In shared memory the address is computed from p, so that the compiler knows the address space; in global memory that
// is slower.
template <Space kSpace = Space::global, int kCount>
__device__ inline void load_words(const uint8_t* p, unsigned (&words)[kCount]) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const auto* const aligned = kSpace == Space::shared ? reinterpret_cast<const unsigned*>(p - (address & 2))
                                                        : reinterpret_cast<const unsigned*>(address & ~uintptr_t{3});
    const unsigned shift = static_cast<unsigned>(address & 2) * 8;
    unsigned low = aligned[0];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const unsigned high = i + 1 < kCount || shift != 0 ? aligned[i + 1] : 0;
        words[i] = __funnelshift_r(low, high, shift);
        low = high;
    }
}

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

// Two bytes of a word, selected as by __byte_perm, minus `zero`, as halves. Byte b below byte 0x64 is the half 1024 + b
// (0x64 is the upper byte of 1024).
__device__ inline __half2 bytes_to_halves(unsigned word, unsigned select, float zero = 0) {
    return __hsub2(halves(__byte_perm(word, 0x64646464u, select)), __float2half2_rn(1024 + zero));
}

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
__device__ inline uint4 to_halves(const unsigned (&words)[2], __half2 scale, __half2 offset) {
    const auto pair = [&](unsigned word, unsigned select) {
        return bits(__hfma2(bytes_to_halves(word, select), scale, offset));
    };
    return make_uint4(pair(words[0], 0x4140), pair(words[0], 0x4342), pair(words[1], 0x4140), pair(words[1], 0x4342));
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

// Calls f with the weight type as a constant: f(Constant<WeightType::Q4_K>{}). operation: for the error message if the
// type is unknown.
template <WeightType kType>
struct Constant {
    static constexpr WeightType value = kType;
};

template <class F>
void dispatch(const char* operation, WeightType type, F&& f) {
    switch (type) {
    case WeightType::F32:
        return f(Constant<WeightType::F32>{});
    case WeightType::F16:
        return f(Constant<WeightType::F16>{});
    case WeightType::BF16:
        return f(Constant<WeightType::BF16>{});
    case WeightType::Q4_0:
        return f(Constant<WeightType::Q4_0>{});
    case WeightType::Q4_1:
        return f(Constant<WeightType::Q4_1>{});
    case WeightType::Q5_0:
        return f(Constant<WeightType::Q5_0>{});
    case WeightType::Q5_1:
        return f(Constant<WeightType::Q5_1>{});
    case WeightType::Q8_0:
        return f(Constant<WeightType::Q8_0>{});
    case WeightType::Q2_K:
        return f(Constant<WeightType::Q2_K>{});
    case WeightType::Q3_K:
        return f(Constant<WeightType::Q3_K>{});
    case WeightType::Q4_K:
        return f(Constant<WeightType::Q4_K>{});
    case WeightType::Q5_K:
        return f(Constant<WeightType::Q5_K>{});
    case WeightType::Q6_K:
        return f(Constant<WeightType::Q6_K>{});
    }
    fail_weights(operation, type);
}

}  // namespace lk::cuda
