// Layout of a page of codes in a warp's shared memory, and arithmetic on codes and scales as halves.
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/device/copy_async.cuh"

namespace lk::cuda {

namespace {

constexpr int kTiles = 4;  // tiles of 32 tokens per page

struct Kind {
    int head_size;
    int bits;        // of a code of keys
    bool paper;      // scale and minimum are halves
    int value_bits;  // of a code of values: `bits`, or 3 (kivi3)
    int rows;        // query rows per thread block: kPagesRows or kPairedRows

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
    __host__ __device__ constexpr int key_code_bytes() const { return kv::kPageTokens * code_rows() * bits / 8; }
    // The last step reads code rows after the last one, and multiplies them by zeros.
    __host__ __device__ constexpr int step_code_bytes() const {
        return kv::kPageTokens * (head_size + refined_rows()) * bits / 8;
    }
    __host__ __device__ constexpr int value_code_bytes() const { return kv::kPageTokens * head_size * value_bits / 8; }
    // Whether the multiplications' columns of a page's first 64 tokens are beside those of the others; see pages.cu.
    __host__ __device__ constexpr bool paired() const { return rows == kPairedRows; }
    // Tokens whose probabilities are in shared memory at a time. A page of 4-bit codes leaves no room for more than 512
    // probabilities in a third of a multiprocessor's shared memory.
    __host__ __device__ constexpr int prob_tokens() const { return bits == 4 && !paired() ? 64 : kv::kPageTokens; }
    // Words of two probabilities: distances of 64 tokens, if they are stored at once, and of rows. Padded so that what
    // lanes store together is in different banks.
    __host__ __device__ constexpr int prob_half() const { return !paired() ? 32 : bits == 2 ? 48 : 36; }
    __host__ __device__ constexpr int prob_row() const {
        return !paired() ? prob_tokens() / 2 + 4 : bits == 2 ? 100 : 72;
    }
    // Probabilities are multiplied by 2^lift, so that their products with scales are normal halves and no product with
    // a zero point or minimum overflows.
    __host__ __device__ constexpr int lift() const { return paper ? 0 : rotated() ? 10 : 6; }
};

// Byte offsets in a warp's shared memory. Only the sizes of the scales depend on the recipe; they come last.
struct Layout {
    int value_codes;  // after the code rows of all steps: blocks of 16 tokens, padded to value_stride()
    int prob;         // half [rows, 2 * prob_row()]
    int refined;      // uint8 [4 groups, refined rows]: scales of the refined channels, then their zero points
    int key_scales;   // with zero points; the scales of values follow

    __host__ __device__ constexpr explicit Layout(Kind kind)
        : value_codes(kind.step_code_bytes()),
          prob(value_codes + 8 * kind.value_stride() * 4),
          refined(prob + kind.rows * kind.prob_row() * 4),
          key_scales(refined + 2 * kTiles * kind.refined_rows()) {}

    __host__ __device__ constexpr int value_scales(const kv::PageFormat& k) const {
        return key_scales + static_cast<int>(k.page_bytes - k.scales_offset);
    }
    __host__ __device__ constexpr int bytes(const kv::PageFormat& k, const kv::PageFormat& v) const {
        return value_scales(k) + static_cast<int>(v.page_bytes - v.scales_offset);
    }
};

// The lane's index, read where it is used: values made of it do not occupy registers before.
__device__ int lane_index() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;\n" : "=r"(lane));
    return lane;
}

// Returns x. Sums with it are not computed ahead of a loop, where they would occupy registers.
__device__ int pinned(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// A lane's part of a warp's asynchronous copy: 16 bytes in each kWarp. The empty statement keeps the compiler from
// computing each address anew.
struct LaneCopy {
    static constexpr int kWarp = 32 * 16;

    int first;  // the lane's first byte
    unsigned to;
    const uint8_t* from;

    __device__ LaneCopy(const char* shared, const uint8_t* page)
        : first(lane_index() * 16), to(shared_address(shared) + first), from(page + first) {
        asm volatile("" : "+r"(to), "+l"(from));
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

// Byte scales 0 and 2 of a word as halves, then 1 and 3. Shifts to the left run on another pipe than logic.
__device__ unsigned even_scales(unsigned word) {
    return word << kv::kByteScaleShift & 0x3fc03fc0u;
}

__device__ unsigned odd_scales(unsigned word) {
    return __byte_perm(word, 0, 0x4341) << kv::kByteScaleShift;
}

// Signed bytes 0 and 2 of a word, then 1 and 3, as halves times kFactor, a small integer: the low bits of the half
// 1024 + 128 + x hold x + 128.
template <int kFactor = 1>
__device__ void zeros_to_halves(unsigned word, unsigned (&zeros)[2]) {
    const unsigned raised = word ^ 0x80808080u;
    const __half2 less = __float2half2_rn(-1152.0f * kFactor);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const __half2 x = halves(__byte_perm(raised, kUpperBytes, i == 0 ? 0x4240 : 0x4341));
        zeros[i] = bits(kFactor == 1 ? __hadd2(x, less) : __hfma2(x, __float2half2_rn(kFactor), less));
    }
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
