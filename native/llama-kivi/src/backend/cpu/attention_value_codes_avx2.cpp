// AVX2 sums of packed values; see attention_codes_avx2.h.
#include <cstddef>
#include <type_traits>

#include "backend/cpu/attention_codes_avx2.h"
#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/packed_codes.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kMostRows = 8;

// Adds codes times weights. Without VNNI, sums have 16 bits, which suffice for two units (8 quads of tokens).
template <class Int>
Int add_products(Int sum, Int codes, Int four) {
#ifdef LK_VNNI
    return add_dot_u8_i8(sum, codes, four);
#else
    static_assert(8 * 2 * 127 * 15 <= 32767);
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four));
#endif
}

template <class Int>
auto total(Int sum) {
#ifdef LK_VNNI
    return to_floats(sum);
#else
    return to_floats(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
#endif
}

// Loads one block of values, or two for a wide vector. With 2 bits, shifts of x[0] give the quads of tokens 0 to 3.
// With 4 bits, shifts of x[0] give quads 0 and 2, and shifts of x[1] give quads 1 and 3.
template <class Int, int kBits>
void load_blocks(const uint8_t* block, Int* x) {
    if constexpr (sizeof(Int) == 32) {
        x[0] = load32(block);
        if constexpr (kBits == 4) {
            x[1] = load32(block + 32);
        }
    } else if constexpr (kBits == 2) {
        x[0] = wide_load(block);
    } else {
#ifdef LK_VNNI
        const __m512i low = wide_load(block);
        const __m512i high = wide_load(block + 64);
        x[0] = _mm512_shuffle_i64x2(low, high, 0x44);
        x[1] = _mm512_shuffle_i64x2(low, high, 0xee);
#endif
    }
}

template <int kShift, class Int>
Int shift_and_mask(Int x, int mask) {
    if constexpr (sizeof(Int) == 32) {
        return _mm256_and_si256(_mm256_srli_epi16(x, kShift), _mm256_set1_epi8(static_cast<char>(mask)));
    } else {
#ifdef LK_VNNI
        return _mm512_and_si512(_mm512_srli_epi16(x, kShift), _mm512_set1_epi8(static_cast<char>(mask)));
#endif
    }
}

// Adds weighted values to acc for R rows: one vector of channels, from `block` on, over all units.
template <class Int, int kBits, int R>
void accumulate_blocks(const uint8_t* block, size_t unit_bytes, int n_units, const int8_t* w, int w_stride,
                       const float* step, const float* bias, float* acc, int acc_stride) {
    constexpr int kVectors = kBits / 2;
    constexpr int kMask = (1 << kBits) - 1;
    Int sums[R];
    for (Int& sum : sums) {
        sum = Int{};
    }
    for (int unit = 0; unit < n_units; ++unit, block += unit_bytes, w += kUnitTokens) {
        Int x[kVectors];
        load_blocks<Int, kBits>(block, x);
        const auto add_quad = [&]<int kQuad>(std::integral_constant<int, kQuad>) {
            const Int codes = shift_and_mask<kQuad / kVectors * kBits>(x[kQuad % kVectors], kMask);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                sums[r] = add_products(sums[r], codes, load_four<Int>(w + r * w_stride + 4 * kQuad));
            }
        };
        add_quad(std::integral_constant<int, 0>());
        add_quad(std::integral_constant<int, 1>());
        add_quad(std::integral_constant<int, 2>());
        add_quad(std::integral_constant<int, 3>());
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        const auto sum = total(sums[r]);
        using Float = std::remove_const_t<decltype(sum)>;
        float* const to = acc + r * acc_stride;
        const Float line = multiply_add(set_floats<Float>(step[r]), sum, set_floats<Float>(bias[r]));
        store_floats(to, add(load_floats<Float>(to), line));
    }
}

template <int kBits, int R>
void accumulate_rows(const uint8_t* unit, size_t unit_bytes, int n_units, int n_blocks, const int8_t* w, int w_stride,
                     const float* step, const float* bias, float* acc, int acc_stride) {
    constexpr int kBlockBytes = kUnitTokens * kBlockChannels * kBits / 8;
    constexpr int kTogether = sizeof(WideInt) / sizeof(__m256i);
    int b = 0;
    for (; b + kTogether <= n_blocks; b += kTogether) {
        accumulate_blocks<WideInt, kBits, R>(unit + b * kBlockBytes, unit_bytes, n_units, w, w_stride, step, bias,
                                             acc + b * kBlockChannels, acc_stride);
    }
    if (b < n_blocks) {
        accumulate_blocks<__m256i, kBits, R>(unit + b * kBlockBytes, unit_bytes, n_units, w, w_stride, step, bias,
                                             acc + b * kBlockChannels, acc_stride);
    }
}

}  // namespace

void accumulate_packed(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits, const int8_t* w,
                       int w_stride, const float* step, const float* bias, int n_rows, float* acc, int acc_stride) {
    if (bits != 2 && bits != 4) {
        unpack_and_accumulate<unpack_codes, dot_codes>(units, unit_bytes, n_units, n_blocks, bits, w, w_stride, step,
                                                       bias, n_rows, acc, acc_stride);
        return;
    }
    for_rows<kMostRows>(n_rows, [&]<int R>(std::integral_constant<int, R>, int r) {
        const auto accumulate = bits == 2 ? accumulate_rows<2, R> : accumulate_rows<4, R>;
        accumulate(units, unit_bytes, n_units, n_blocks, w + r * w_stride, w_stride, step + r, bias + r,
                   acc + r * acc_stride, acc_stride);
    });
}

}  // namespace lk::cpu::LK_SIMD
