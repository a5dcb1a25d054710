// Conversions between floats, halves and pairs of halves in a word.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace lk::cuda {

__device__ inline float half_bits_to_float(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

__device__ inline uint16_t float_to_half_bits(float x) {
    return __half_as_ushort(__float2half_rn(x));
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

// Upper bytes of halves from 1024 on: byte b below byte 0x64 is the half 1024 + b.
constexpr unsigned kUpperBytes = 0x64646464;

// Two bytes of a word, selected as by __byte_perm, minus `zero`, as halves. upper: kUpperBytes.
__device__ inline __half2 bytes_to_halves(unsigned word, unsigned select, float zero = 0,
                                          unsigned upper = kUpperBytes) {
    return __hsub2(halves(__byte_perm(word, upper, select)), __float2half2_rn(1024 + zero));
}

}  // namespace lk::cuda
