// Shared by the AVX2 kernels for packed keys and values. Codes stay in registers from the page to the sums. Integer
// sums are exact, so results equal those of unpack_codes and dot_codes bit for bit.
//
// A piece is a vector of codes for byte dot products: one lane per token (keys) or channel (values), four codes per
// lane.
#pragma once

#include <cstdint>
#include <cstring>

#include "backend/cpu/row_groups.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Broadcasts four weights of a row to every lane.
template <class Int>
Int load_four(const int8_t* w) {
    int four;
    std::memcpy(&four, w, 4);
    if constexpr (sizeof(Int) == 32) {
        return _mm256_set1_epi32(four);
    } else {
        return wide_set(four);
    }
}

}  // namespace

}  // namespace lk::cpu::LK_SIMD
