// Row access and row quantization for warps and thread blocks. This folder uses the arithmetic of
// kv/codec/scalar_codec.h and kv/codec/quantizer.cpp, in the same order wherever the order affects a code, and is
// compiled without floating-point contraction.
#pragma once

#include <cmath>

#include "backend/cuda/append/head_rows.h"
#include "backend/cuda/append/kernels.h"
#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

using kv::PageFormat;
using kv::ScaleKind;
using kv::Side;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxHead = kv::kMaxHeadSize;
constexpr int kLaneChannels = kMaxHead / 32;  // a lane has channels lane + 32 j

static_assert(kThreads == kMaxHead, "a thread takes a channel");

// ---- a row of D channels in the registers of a warp

// Orthonormal Hadamard transform over blocks of the largest power of two that divides D. Adds in the order of
// kv::hadamard.
__device__ inline void hadamard(float (&x)[kLaneChannels], int d) {
    const int lane = threadIdx.x % 32;
    const int block = d & -d;
    for (int half = 1; half < block && half < 32; half *= 2) {
        for (int j = 0; j < kLaneChannels; ++j) {
            const float other = __shfl_xor_sync(kAllLanes, x[j], half);
            x[j] = lane & half ? other - x[j] : x[j] + other;
        }
    }
    for (int half = 32; half < block; half *= 2) {
        const int step = half / 32;
#pragma unroll
        for (int j = 0; j < kLaneChannels; ++j) {
            if (!(j & step) && j + step < kLaneChannels) {
                // The index is constant after unrolling, so x stays in registers.
#pragma unroll
                for (int s = 1; s < kLaneChannels; s *= 2) {
                    if (s == step && j + s < kLaneChannels) {
                        const float u = x[j];
                        const float v = x[j + s];
                        x[j] = u + v;
                        x[j + s] = u - v;
                    }
                }
            }
        }
    }
    const float norm = 1.0f / sqrtf(static_cast<float>(block));
    for (int j = 0; j < kLaneChannels; ++j) {
        x[j] *= norm;
    }
}

// Rotates a centred value of kivi2 or kivi3 in place; returns its codes and its scale.
__device__ inline float rotated_value(const PageFormat& f, float (&w)[kLaneChannels], uint8_t (&codes)[kLaneChannels]) {
    const int d = f.head_size;
    const int lane = threadIdx.x % 32;
    hadamard(w, d);
    double square = 0;
    for (int j = 0; j < kLaneChannels; ++j) {
        if (lane + 32 * j < d) {
            square += static_cast<double>(w[j]) * w[j];
        }
    }
    square = warp_sum(square);
    const float step = kv::value_step(square / d, f.bits);
    double along = 0;
    for (int j = 0; j < kLaneChannels; ++j) {
        const int code = kv::value_code(w[j], step, f.bits);
        codes[j] = static_cast<uint8_t>(code);
        if (lane + 32 * j < d) {
            along += static_cast<double>(w[j]) * kv::value_level(code, f.bits);
        }
    }
    along = warp_sum(along);
    static_assert(kv::kValueLevelOffset == 1.5f && kv::kValueLevelOffset3 == 3.5f, "twice a level is an odd integer");
    const int least = 1 - (1 << f.bits);  // twice the level of code 0
    int level_square = 0;                 // of twice the levels
    for (int j = 0; j < kLaneChannels; ++j) {
        const int twice = lane + 32 * j < d ? 2 * codes[j] + least : 0;
        level_square += twice * twice;
    }
    return kv::halfway_scale(square, along, warp_sum(level_square) / 4.0);
}

// Loads row i with one warp.
template <class Rows>
__device__ void load_row(const Rows& rows, int i, float (&x)[kLaneChannels]) {
    for (int j = 0; j < kLaneChannels; ++j) {
        const int c = threadIdx.x % 32 + 32 * j;
        x[j] = c < rows.d ? rows.at(i, c) : 0.0f;
    }
}

// ---- the rows of an append to one head

// Consecutive rows. Their addresses take one multiplication, and the compiler sees which memory they are in; the loops
// that read each row many times are bound by both.
struct CopiedRows {
    const uint16_t* rows;  // [row, stride]
    int d;
    int stride;

    __device__ uint16_t half(int i, int c) const { return rows[i * stride + c]; }
    __device__ float at(int i, int c) const { return half_bits_to_float(half(i, c)); }
};

// Copies rows [first, first + n) to `out`, [n, stride], with a thread block; returns them as rows [0, n). A warp copies
// four channels per lane of a row at a time.
__device__ inline CopiedRows copy_rows(const HeadRows& rows, int first, int n, uint16_t* out, int stride) {
    const int lane = threadIdx.x % 32;
    const int warps = blockDim.x / 32;
    for (int c = 4 * lane; c < rows.d; c += 4 * 32) {
#pragma unroll 4
        for (int i = threadIdx.x / 32; i < n; i += warps) {
            const Words2 four = rows.four(first + i, c);
            uint32_t* const to = reinterpret_cast<uint32_t*>(out + i * stride + c);
            to[0] = four.x;
            to[1] = four.y;
        }
    }
    __syncthreads();
    return {out, rows.d, stride};
}

// Dynamic shared memory of a thread block: scratch, and a copy of rows that are read many times, if it fits.
struct SharedLayout {
    int bytes;
    int copy;  // offset of the copy; 0: no copy

    SharedLayout(int work_bytes, int row_bytes) : bytes((work_bytes + 15) / 16 * 16), copy(0) {
        constexpr int kMost = 100 << 10;  // leaves room for two thread blocks per multiprocessor
        if (bytes + row_bytes <= kMost) {
            copy = bytes;
            bytes += row_bytes;
        }
    }
    template <class... Parameters>
    void allow(void (*kernel)(Parameters...)) const {
        if (bytes > 48 << 10) {
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        }
    }
};

// Minimum and maximum of channel c over rows [from, to).
template <class Rows>
__device__ void range_of(const Rows& rows, int from, int to, int c, float& min, float& max) {
    min = max = rows.at(from, c);
    for (int i = from + 1; i < to; ++i) {
        const float x = rows.at(i, c);
        min = fminf(min, x);
        max = fmaxf(max, x);
    }
}

}  // namespace lk::cuda
