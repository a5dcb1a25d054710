// Helpers that the kernels share.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "quant/blocks.h"

namespace lk::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float half_bits_to_float(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

__device__ inline uint16_t float_to_half_bits(float x) {
    return __half_as_ushort(__float2half_rn(x));
}

// A byte scale of the cache, before its head's power of two.
__device__ inline float byte_scale(unsigned byte) {
    return half_bits_to_float(static_cast<uint16_t>(byte << 6));
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

// Sum over a block of up to 1024 threads; every thread gets it. scratch: 32 floats in shared memory.
__device__ inline float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    __syncthreads();  // scratch may be in use
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    const int n_warps = (blockDim.x + 31) / 32;
    return warp_sum(threadIdx.x % 32 < n_warps ? scratch[threadIdx.x % 32] : 0.0f);
}

// Two halves in a word, and back.
__device__ inline unsigned bits(__half2 x) {
    return *reinterpret_cast<const unsigned*>(&x);
}

__device__ inline __half2 halves(unsigned x) {
    return *reinterpret_cast<const __half2*>(&x);
}

__device__ inline unsigned pack(float low, float high) {
    return bits(__floats2half2_rn(low, high));
}

// d[16 x 8] += a[16 x 16] b[16 x 8] on the matrix units, halves into floats. With g = lane / 4 and j = lane % 4, a lane has
// rows g and g + 8 of a and of d, column g of b, columns 2 j and 2 j + 1 of d; of the 16, a0, a1 and b0 have 2 j and
// 2 j + 1, the others these and 8 more.
__device__ inline void multiply(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline uint16_t load_u16(const uint8_t* p) {
    return *reinterpret_cast<const uint16_t*>(p);
}

// Four bytes at an even address.
__device__ inline uint32_t load_u32(const uint8_t* p) {
    return load_u16(p) | static_cast<uint32_t>(load_u16(p + 2)) << 16;
}

__device__ inline float nibble(uint32_t word, int byte, int high) {
    return static_cast<float>((word >> (8 * byte + 4 * high)) & 15);
}

// Elements [i, i + 8) of a row of weights, i a multiple of 8. The layouts are those of quant/blocks.h.
template <WeightType kType>
__device__ inline void decode8(const uint8_t* row, int i, float* out) {
    if constexpr (kType == WeightType::F32) {
        const float4* p = reinterpret_cast<const float4*>(row) + i / 4;
        const float4 a = p[0];
        const float4 b = p[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else if constexpr (kType == WeightType::F16 || kType == WeightType::BF16) {
        const uint4 words = *(reinterpret_cast<const uint4*>(row) + i / 8);
        const uint32_t w[4] = {words.x, words.y, words.z, words.w};
        for (int j = 0; j < 4; ++j) {
            if constexpr (kType == WeightType::F16) {
                const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&w[j]));
                out[2 * j] = pair.x;
                out[2 * j + 1] = pair.y;
            } else {
                out[2 * j] = __uint_as_float(w[j] << 16);
                out[2 * j + 1] = __uint_as_float(w[j] & 0xffff0000u);
            }
        }
    } else if constexpr (kType == WeightType::Q8_0) {
        const uint8_t* b = row + static_cast<size_t>(i / 32) * sizeof(BlockQ8_0);
        const float d = half_bits_to_float(load_u16(b));
        for (int j = 0; j < 2; ++j) {
            const uint32_t w = load_u32(b + 2 + i % 32 + 4 * j);
            for (int k = 0; k < 4; ++k) {
                out[4 * j + k] = d * static_cast<float>(static_cast<int8_t>(w >> (8 * k)));
            }
        }
    } else if constexpr (kType == WeightType::Q4_0 || kType == WeightType::Q4_1 || kType == WeightType::Q5_0 ||
                         kType == WeightType::Q5_1) {
        constexpr bool five = kType == WeightType::Q5_0 || kType == WeightType::Q5_1;
        constexpr bool minimum = kType == WeightType::Q4_1 || kType == WeightType::Q5_1;
        constexpr int header = minimum ? 4 : 2;
        constexpr int size = header + (five ? 4 : 0) + 16;
        const uint8_t* b = row + static_cast<size_t>(i / 32) * size;
        const float d = half_bits_to_float(load_u16(b));
        const float m = minimum ? half_bits_to_float(load_u16(b + 2)) : (five ? -16.0f : -8.0f) * d;
        const int at = i % 32;
        const int high = at / 16;
        const uint8_t* qs = b + header + (five ? 4 : 0) + at % 16;
        const uint32_t qh = five ? load_u32(b + header) >> at : 0;
        for (int j = 0; j < 2; ++j) {
            const uint32_t w = load_u32(qs + 4 * j);
            for (int k = 0; k < 4; ++k) {
                float q = nibble(w, k, high);
                if (five) {
                    q += static_cast<float>((qh >> (4 * j + k) & 1) << 4);
                }
                out[4 * j + k] = q * d + m;
            }
        }
    } else if constexpr (kType == WeightType::Q4_K || kType == WeightType::Q5_K) {
        constexpr bool five = kType == WeightType::Q5_K;
        const uint8_t* b = row + static_cast<size_t>(i / 256) * (five ? sizeof(BlockQ5_K) : sizeof(BlockQ4_K));
        const int at = i % 256;
        const int sub = at / 32;
        const uint8_t* scales = b + 4;
        int sc;
        int m;
        if (sub < 4) {
            sc = scales[sub] & 63;
            m = scales[sub + 4] & 63;
        } else {
            sc = (scales[sub + 4] & 15) | (scales[sub - 4] >> 6 << 4);
            m = (scales[sub + 4] >> 4) | (scales[sub] >> 6 << 4);
        }
        const float d = half_bits_to_float(load_u16(b)) * static_cast<float>(sc);
        const float minimum = half_bits_to_float(load_u16(b + 2)) * static_cast<float>(m);
        const uint8_t* qs = b + 16 + (five ? 32 : 0) + at / 64 * 32 + at % 32;
        const uint8_t* qh = b + 16 + at % 32;
        for (int j = 0; j < 2; ++j) {
            const uint32_t w = load_u32(qs + 4 * j);
            const uint32_t h = five ? load_u32(qh + 4 * j) >> sub : 0;
            for (int k = 0; k < 4; ++k) {
                float q = nibble(w, k, sub % 2);
                if (five) {
                    q += static_cast<float>((h >> (8 * k) & 1) << 4);
                }
                out[4 * j + k] = q * d - minimum;
            }
        }
    } else if constexpr (kType == WeightType::Q6_K) {
        const uint8_t* b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ6_K);
        const int at = i % 256;
        const int part = at / 128;
        const int quarter = at % 128 / 32;
        const float d = half_bits_to_float(load_u16(b + 208)) *
                        static_cast<float>(static_cast<int8_t>(b[192 + at / 16]));
        const uint8_t* ql = b + part * 64 + quarter % 2 * 32 + at % 32;
        const uint8_t* qh = b + 128 + part * 32 + at % 32;
        for (int j = 0; j < 2; ++j) {
            const uint32_t low = load_u32(ql + 4 * j) >> (quarter / 2 * 4);
            const uint32_t high = load_u32(qh + 4 * j) >> (quarter * 2);
            for (int k = 0; k < 4; ++k) {
                const int q = static_cast<int>((low >> (8 * k) & 15) | (high >> (8 * k) & 3) << 4) - 32;
                out[4 * j + k] = d * static_cast<float>(q);
            }
        }
    } else if constexpr (kType == WeightType::Q2_K) {
        const uint8_t* b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ2_K);
        const int at = i % 256;
        const float d = half_bits_to_float(load_u16(b + 80)) * static_cast<float>(b[at / 16] & 15);
        const float m = half_bits_to_float(load_u16(b + 82)) * static_cast<float>(b[at / 16] >> 4);
        const uint8_t* qs = b + 16 + at / 128 * 32 + at % 32;
        for (int j = 0; j < 8; ++j) {
            out[j] = d * static_cast<float>(qs[j] >> (at % 128 / 32 * 2) & 3) - m;
        }
    } else {
        static_assert(kType == WeightType::Q3_K);
        const uint8_t* b = row + static_cast<size_t>(i / 256) * sizeof(BlockQ3_K);
        const int at = i % 256;
        const uint8_t* scales = b + 96;
        const int s = at / 16;
        const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        const int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        const float d = half_bits_to_float(load_u16(b + 108)) * static_cast<float>((low | high << 4) - 32);
        const uint8_t* qs = b + 32 + at / 128 * 32 + at % 32;
        for (int j = 0; j < 8; ++j) {
            const int q = (qs[j] >> (at % 128 / 32 * 2) & 3) + 4 * (b[at % 32 + j] >> (at / 32) & 1) - 4;
            out[j] = d * static_cast<float>(q);
        }
    }
}

// Calls f with the weight type as a constant: f(Constant<WeightType::Q4_K>{}).
template <WeightType kType>
struct Constant {
    static constexpr WeightType value = kType;
};

template <class F>
void dispatch(WeightType type, F&& f) {
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
}

}  // namespace lk::cuda
