// Helpers shared by the AVX2 kernels. Include only from *_avx2.cpp.
#pragma once

#include <immintrin.h>

#include "backend/cpu/kernels_avx2.h"

namespace lk::cpu::LK_SIMD {

inline float sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline float max_lanes(__m256 v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline int max_lanes(__m256i v) {
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

inline int sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Returns the sums of the lanes of a, b, c and d in lanes 0 to 3.
inline __m128 sum_four(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// Sums of four vectors of integers within each of their halves, in both halves.
inline __m256i sum_halves_of_four(const __m256i* v) {
    const auto two = [](__m256i a, __m256i b) {
        return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    };
    const __m256i ab = two(v[0], v[1]);
    const __m256i cd = two(v[2], v[3]);
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

// The sums of the lanes of v[0] to v[3], in lanes 0 to 3 and again in 4 to 7.
inline __m256i sum_four(const __m256i* v) {
    const __m256i s = sum_halves_of_four(v);
    return _mm256_add_epi32(s, _mm256_permute2x128_si256(s, s, 0x01));
}

// The sums of the lanes of v[0] to v[7], in lanes 0 to 7.
inline __m256i sum_eight(const __m256i* v) {
    const __m256i low = sum_halves_of_four(v);
    const __m256i high = sum_halves_of_four(v + 4);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

// Transposes eight vectors of eight 32-bit values. Stores vector j at out + j * stride_bytes.
inline void store_transposed(const __m256i* v, void* out, ptrdiff_t stride_bytes) {
    __m256i a[8];
    __m256i b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        char* p = static_cast<char*>(out) + i * stride_bytes;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 4 * stride_bytes),
                            _mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
    }
}

// exp(x) for x <= 88, relative error below 3e-7; underflows to 0 below -87.
// x = n ln 2 + r with |r| <= ln(2)/2; e^r from its Taylor polynomial of degree 7, 2^n from the exponent bits.
inline __m256 exp_ps(__m256 x) {
    const __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_LT_OQ);
    // If an operand is NaN, min_ps and max_ps return the second operand, so a NaN in x survives.
    x = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-87.0f), x));
    // Adding 1.5 * 2^23 rounds to an integer and leaves it, plus the bias of exponents, in the low bits.
    const __m256 rounder = _mm256_set1_ps(0x1.8p23f + 127);
    const __m256 biased = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), rounder);
    const __m256 n = _mm256_sub_ps(biased, rounder);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);  // ln 2 in two parts; n times the first is exact
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 e = _mm256_set1_ps(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
        e = _mm256_fmadd_ps(e, r, _mm256_set1_ps(c));
    }
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(biased), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(e, _mm256_castsi256_ps(power)));
}

inline __m256 load_half8(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

inline __m256i load32(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline __m256 abs_ps(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

// Adds the products of unsigned and signed bytes to sum, four per lane.
inline __m256i add_dot_u8_i8(__m256i sum, __m256i u, __m256i s) {
#ifdef LK_VNNI
    return _mm256_dpbusd_epi32(sum, u, s);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
#endif
}

inline __m256i dot_u8_i8(__m256i u, __m256i s) {
    return add_dot_u8_i8(_mm256_setzero_si256(), u, s);
}

// Adds the products of 16-bit integers to sum, two per lane.
inline __m256i add_dot_i16(__m256i sum, __m256i a, __m256i b) {
#ifdef LK_VNNI
    return _mm256_dpwssd_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

// The table's widest vectors, of kLanes 32-bit values.
#ifdef LK_VNNI
constexpr int kLanes = 16;
using WideInt = __m512i;
using WideFloat = __m512;

inline WideInt wide_zero() {
    return _mm512_setzero_si512();
}
inline WideInt wide_set(int x) {
    return _mm512_set1_epi32(x);
}
inline WideInt wide_load(const void* p) {
    return _mm512_loadu_si512(p);
}
inline WideFloat to_floats(WideInt x) {
    return _mm512_cvtepi32_ps(x);
}
inline WideFloat add(WideFloat a, WideFloat b) {
    return _mm512_add_ps(a, b);
}
inline WideFloat multiply(WideFloat a, WideFloat b) {
    return _mm512_mul_ps(a, b);
}
inline WideFloat multiply_add(WideFloat a, WideFloat b, WideFloat c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline void store_floats(float* p, WideFloat x) {
    _mm512_storeu_ps(p, x);
}

inline WideFloat wide_abs(WideFloat x) {
    return _mm512_abs_ps(x);
}
inline WideFloat wide_max(WideFloat a, WideFloat b) {
    return _mm512_max_ps(a, b);
}
inline WideFloat wide_subtract(WideFloat a, WideFloat b) {
    return _mm512_sub_ps(a, b);
}
inline WideInt wide_round(WideFloat x) {
    return _mm512_cvtps_epi32(x);
}
inline float max_lanes(WideFloat x) {
    return max_lanes(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
inline float sum_lanes(WideFloat x) {
    return sum_lanes(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
// The low byte of each lane.
inline void store_bytes(int8_t* p, WideInt x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}

inline WideFloat wide_exp(WideFloat x) {
    const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 e = _mm512_set1_ps(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
        e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(c));
    }
    return _mm512_maskz_scalef_ps(normal, e, n);
}

inline WideInt add_dot_i16(WideInt sum, WideInt a, WideInt b) {
    return _mm512_dpwssd_epi32(sum, a, b);
}
inline WideInt add_dot_u8_i8(WideInt sum, WideInt u, WideInt s) {
    return _mm512_dpbusd_epi32(sum, u, s);
}
#else
constexpr int kLanes = 8;
using WideInt = __m256i;
using WideFloat = __m256;

inline WideInt wide_zero() {
    return _mm256_setzero_si256();
}
inline WideInt wide_set(int x) {
    return _mm256_set1_epi32(x);
}
inline WideInt wide_load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline WideFloat wide_abs(WideFloat x) {
    return abs_ps(x);
}
inline WideFloat wide_max(WideFloat a, WideFloat b) {
    return _mm256_max_ps(a, b);
}
inline WideFloat wide_subtract(WideFloat a, WideFloat b) {
    return _mm256_sub_ps(a, b);
}
inline WideInt wide_round(WideFloat x) {
    return _mm256_cvtps_epi32(x);
}
inline WideFloat wide_exp(WideFloat x) {
    return exp_ps(x);
}
// The low byte of each lane.
inline void store_bytes(int8_t* p, WideInt x) {
    const __m128i pick = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i low = _mm_shuffle_epi8(_mm256_castsi256_si128(x), pick);
    const __m128i high = _mm_shuffle_epi8(_mm256_extracti128_si256(x, 1), pick);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(low, high));
}
#endif

inline __m256 multiply(__m256 a, __m256 b) {
    return _mm256_mul_ps(a, b);
}
inline __m256 multiply_add(__m256 a, __m256 b, __m256 c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline void store_floats(float* p, __m256 x) {
    _mm256_storeu_ps(p, x);
}

inline __m256 add(__m256 a, __m256 b) {
    return _mm256_add_ps(a, b);
}
inline __m256 to_floats(__m256i x) {
    return _mm256_cvtepi32_ps(x);
}

// Loads floats into a vector of either width.
template <class Vector>
Vector load_floats(const float* p) {
    if constexpr (sizeof(Vector) == 32) {
        return _mm256_loadu_ps(p);
    } else {
        return _mm512_loadu_ps(p);
    }
}

template <class Vector>
Vector set_floats(float x) {
    if constexpr (sizeof(Vector) == 32) {
        return _mm256_set1_ps(x);
    } else {
        return _mm512_set1_ps(x);
    }
}

}  // namespace lk::cpu::LK_SIMD
