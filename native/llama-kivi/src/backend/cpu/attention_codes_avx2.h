// Shared by the AVX2 kernels for packed keys and values. Codes stay in registers from the page to the sums. Integer
// sums are exact, so results equal those of unpack_codes and dot_codes bit for bit.
//
// A piece is a vector of codes for byte dot products: one lane per token (keys) or channel (values), four codes per
// lane.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Splits rows into groups of at most kMost of similar size. Calls body(integral_constant of the size, first row).
template <int kMost, class Body>
void for_rows(int n, const Body& body) {
    int groups = (n + kMost - 1) / kMost;
    for (int r = 0; groups > 0; --groups) {
        const int size = (n - r + groups - 1) / groups;
        const auto call = [&]<int R>(std::integral_constant<int, R> rows) {
            if (size == R) {
                body(rows, r);
            }
        };
        [&]<int... R>(std::integer_sequence<int, R...>) {
            (call(std::integral_constant<int, R + 1>()), ...);
        }
        (std::make_integer_sequence<int, kMost>());
        r += size;
    }
}

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
