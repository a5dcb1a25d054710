// Layout of a page of codes in a warp's shared memory, and arithmetic on codes and scales as halves.
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/device/copy_async.cuh"

namespace lk::cuda {

namespace {

constexpr int kRows = kPagesRows;
constexpr int kTiles = 4;      // tiles of 32 tokens per page
constexpr int kProbRow = 136;  // halves per row of probabilities, padded so that rows are in different banks

struct Kind {
    int head_size;
    int bits;        // of a code of keys
    bool paper;      // scale and minimum are halves
    int value_bits;  // of a code of values: `bits`, or 3 (kivi3)

    __host__ __device__ constexpr bool rotated() const {
        return bits == 2 && !paper;
    }                                                    // kivi2 and kivi3: also refined keys
    __host__ __device__ constexpr int refined() const {  // channels
        return rotated() ? refined_in(value_bits, head_size) : 0;
    }
    // Rounded up to the 16 code rows of a step.
    __host__ __device__ constexpr int refined_rows() const { return (refined() + 15) / 16 * 16; }
    __host__ __device__ constexpr int code_rows() const { return head_size + refined(); }
    __host__ __device__ constexpr int value_words() const { return head_size * value_bits / 2; }  // of 16 tokens
    __host__ __device__ constexpr int value_stride() const { return value_words() + 8; }  // avoids bank conflicts
    // Probabilities are multiplied by 2^lift, so that their products with scales are normal halves and no product with
    // a zero point or minimum overflows.
    __host__ __device__ constexpr int lift() const { return paper ? 0 : rotated() ? 10 : 6; }
};

// Byte offsets in a warp's shared memory: a page of keys unchanged, values in padded blocks of 16 tokens, their scales.
struct Layout {
    int values;
    int value_scales;
    int refined;  // uint8 [4 groups, refined rows]: scales of the refined channels, then their zero points
    int prob;     // half [rows, kProbRow]
    int bytes;

    __host__ __device__ Layout(Kind kind, const kv::PageFormat& k, const kv::PageFormat& v) {
        values = static_cast<int>(k.page_bytes);
        value_scales = values + 8 * kind.value_stride() * 4;
        refined = value_scales + static_cast<int>(v.page_bytes - v.scales_offset);
        prob = refined + 2 * kTiles * kind.refined_rows();
        bytes = prob + kRows * kProbRow * 2;
    }
};

// Transposes an 8 x 8 matrix of halves; a lane has columns 2 j and 2 j + 1 of row g.
__device__ unsigned transpose(unsigned x) {
    unsigned y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(y) : "r"(x));
    return y;
}

__device__ unsigned times(unsigned a, unsigned b) {
    return bits(__hmul2(halves(a), halves(b)));
}

// Halves 0 and 2 of the four halves in a and b; high_halves: 1 and 3.
__device__ unsigned low_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x5410);
}

__device__ unsigned high_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x7632);
}

// Byte scales 0 and 2 of a word as halves, then 1 and 3.
constexpr unsigned kScaleMask = 0x3fc03fc0u;

__device__ unsigned even_scales(unsigned word) {
    return word << 6 & kScaleMask;
}

__device__ unsigned odd_scales(unsigned word) {
    return word >> 2 & kScaleMask;
}

// Signed bytes 0 and 2 of a word as halves: the low bits of the half 1024 + 128 + x hold x + 128.
__device__ unsigned even_zeros(unsigned word) {
    const unsigned raised = (word & 0x00ff00ffu) ^ 0x64806480u;
    return bits(__hsub2(halves(raised), __half2half2(__ushort_as_half(0x6480))));
}

// Waits for all asynchronous copies of the warp except the last group.
__device__ void wait_for_copies() {
    copy_wait<1>();
    __syncwarp();
}

// Reduces over the lanes with the same j.
__device__ float max_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
}

__device__ float sum_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ float power2(int e) {
    return __int_as_float((127 + e) << 23);
}

}  // namespace

}  // namespace lk::cuda
