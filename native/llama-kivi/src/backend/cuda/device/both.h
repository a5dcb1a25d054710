// Functions for kernels that hosts have too, so that tests run them without a GPU. C++17, with or without CUDA.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/words.cuh"
#define LK_BOTH __device__ inline
#define LK_UNROLL _Pragma("unroll")
#else
#include "base/half.h"
#define LK_BOTH inline
#define LK_UNROLL
#endif

namespace lk::cuda {

// 16 bytes, which a lane reads at once.
struct alignas(16) Words4 {
    unsigned w[4];
};
struct alignas(16) Floats4 {
    float v[4];
};

// sum plus the dot product of four unsigned bytes of `a` and four signed bytes of `b`.
LK_BOTH int dot_unsigned(unsigned a, unsigned b, int sum) {
#ifdef __CUDACC__
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
#else
    for (int k = 0; k < 32; k += 8) {
        sum += static_cast<int>(a >> k & 255) * static_cast<int8_t>(b >> k & 255);
    }
#endif
    return sum;
}

// The same with signed bytes of `a`.
LK_BOTH int dot_signed(unsigned a, unsigned b, int sum) {
#ifdef __CUDACC__
    return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#else
    for (int k = 0; k < 32; k += 8) {
        sum += static_cast<int8_t>(a >> k & 255) * static_cast<int8_t>(b >> k & 255);
    }
    return sum;
#endif
}

// Words at an even address in shared memory; see load_words.
template <int kCount>
LK_BOTH void read_words(const uint8_t* p, unsigned (&words)[kCount]) {
#ifdef __CUDACC__
    load_words<Space::shared>(p, words);
#else
    std::memcpy(words, p, sizeof words);
#endif
}

LK_BOTH float half_value(unsigned bits) {
#ifdef __CUDACC__
    return half_bits_to_float(static_cast<uint16_t>(bits));
#else
    return half_to_float(static_cast<half_t>(bits));
#endif
}

LK_BOTH float read_half(const uint8_t* p) {
    return half_value(*reinterpret_cast<const uint16_t*>(p));
}

LK_BOTH float float_of_bits(unsigned bits) {
#ifdef __CUDACC__
    return __uint_as_float(bits);
#else
    float x = 0;
    std::memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

}  // namespace lk::cuda
