// Forms in which rows are stored: floats, halves, codes of 8 bits.
#pragma once

#include <cstdint>

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/row_sums.cuh"
#include "backend/cuda/device/warp.cuh"
#include "base/finite.h"

namespace lk::cuda {

__device__ inline float greatest(float4 v) {
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// A target stores four elements at a time; i is a multiple of four.
struct ToFloats {
    float* out;

    __device__ static bool fits(float4 v) { return is_finite(v); }

    __device__ void operator()(int64_t i, float4 v) const { *reinterpret_cast<float4*>(out + i) = v; }
};

struct ToHalves {
    uint16_t* out;

    // From 65520 on, rounding to half gives infinity.
    __device__ static bool fits(float4 v) { return is_finite(v) && greatest(v) < 65520.0f; }

    __device__ void operator()(int64_t i, float4 v) const {
        *reinterpret_cast<uint2*>(out + i) = make_uint2(pack(v.x, v.y), pack(v.z, v.w));
    }
};

// Halves in the order in which lanes of quantized_wgmma.cu have weights: a lane has eight consecutive elements of every
// 32, and a multiplication takes its elements 2 j, 2 j + 1, 2 j + 8 and 2 j + 9 of 16. So of the 32, element 8 j + 4 m
// + 2 h + e is at 16 m + 8 h + 2 j + e.
struct ToLaneHalves {
    uint16_t* out;

    __device__ static bool fits(float4 v) { return ToHalves::fits(v); }

    __device__ void operator()(int64_t i, float4 v) const {
        const int in_block = static_cast<int>(i % 32);
        auto* const to = reinterpret_cast<unsigned*>(out + (i - in_block) + in_block % 8 * 4 + in_block / 8 * 2);
        to[0] = pack(v.x, v.y);
        to[4] = pack(v.z, v.w);
    }
};

// Eight neighbouring threads share a block of 32.
struct ToCodes {
    int8_t* codes;
    float2* blocks;

    __device__ static bool fits(float4 v) { return is_finite(v); }

    __device__ void operator()(int64_t i, float4 v) const {
        const unsigned neighbours = 0xffu << (threadIdx.x % 32 / 8 * 8);
        float largest = greatest(v);
        for (int offset = 4; offset > 0; offset /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(neighbours, largest, offset));
        }
        const float scale = largest / 127;
        const float inverse = finite_quotient(127, largest);
        const int q[4] = {__float2int_rn(v.x * inverse), __float2int_rn(v.y * inverse), __float2int_rn(v.z * inverse),
                          __float2int_rn(v.w * inverse)};
        int sum = q[0] + q[1] + q[2] + q[3];
        for (int offset = 4; offset > 0; offset /= 2) {
            sum += __shfl_xor_sync(neighbours, sum, offset);
        }
        *reinterpret_cast<char4*>(codes + i) =
            make_char4(static_cast<signed char>(q[0]), static_cast<signed char>(q[1]), static_cast<signed char>(q[2]),
                       static_cast<signed char>(q[3]));
        if (threadIdx.x % 8 == 0) {
            blocks[i / 32] = make_float2(scale, scale * static_cast<float>(sum));
        }
    }
};

}  // namespace lk::cuda
