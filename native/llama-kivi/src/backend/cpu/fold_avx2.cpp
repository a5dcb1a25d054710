// AVX2 folding of scales into int8 weights. Rows are folded four at a time, so that their horizontal sums and divisions
// share instructions; a row's results do not depend on the others.
#include <algorithm>
#include <cfloat>
#include <type_traits>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"
#include "backend/cpu/tiles_avx2.h"
#include "kv/codec/kivi_format.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kRows = 4;

#ifdef LK_VNNI
__m256 add_halves(__m512 x) {
    return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}
__m256 max_halves(__m512 x) {
    return _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}
#else
__m256 add_halves(__m256 x) {
    return x;
}
__m256 max_halves(__m256 x) {
    return x;
}
#endif

__m128 sum_rows(const WideFloat* x) {
    return sum_four(add_halves(x[0]), add_halves(x[1]), add_halves(x[2]), add_halves(x[3]));
}

__m128 max_rows(const WideFloat* x) {
    __m128 v[kRows];
    for (int r = 0; r < kRows; ++r) {
        const __m256 half = max_halves(x[r]);
        v[r] = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
    return _mm_max_ps(_mm_max_ps(v[0], v[1]), _mm_max_ps(v[2], v[3]));
}

__m128i sum_rows(const __m256i* x) {
    return _mm256_castsi256_si128(sum_four(x));
}

// finite_quotient of each lane.
__m128 finite_quotients(float a, __m128 b) {
    const __m128 q = _mm_div_ps(_mm_set1_ps(a), b);
    const __m128 size = _mm_andnot_ps(_mm_set1_ps(-0.0f), q);
    return _mm_and_ps(q, _mm_cmple_ps(size, _mm_set1_ps(FLT_MAX)));
}

// w[n] = a * scale * factor, rounded. Returns the sums of w in eight lanes.
#ifdef LK_VNNI
inline __m256i round_row(const float* a, const float* scale, float factor, int n, int8_t* w) {
    const __m512 f = _mm512_set1_ps(factor);
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < n; i += kLanes) {
        const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(scale + i));
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x, f));
        store_bytes(w + i, code);
        sum = _mm512_add_epi32(sum, code);
    }
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
}
#else
inline __m256i round_row(const float* a, const float* scale, float factor, int n, int8_t* w) {
    constexpr int kMostWeights = 2 * kv::kMaxHeadSize;  // keys of which every channel is refined
    static_assert(kMostWeights / 16 * 127 <= 32767);    // sums in 16 lanes of 16 bits
    const __m256 f = _mm256_set1_ps(factor);
    const auto eight = [&](int i) {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(scale + i));
        return _mm256_cvtps_epi32(_mm256_mul_ps(x, f));
    };
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packs do not cross 128-bit halves
    __m256i sum = _mm256_setzero_si256();
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i low = _mm256_packs_epi32(eight(i), eight(i + 8));
        const __m256i high = _mm256_packs_epi32(eight(i + 16), eight(i + 24));
        sum = _mm256_add_epi16(sum, _mm256_add_epi16(low, high));
        const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(w + i), codes);
    }
    if (i < n) {
        const __m256i low = _mm256_packs_epi32(eight(i), eight(i + 8));
        sum = _mm256_add_epi16(sum, low);
        const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, low), order);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(w + i), _mm256_castsi256_si128(codes));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}
#endif

template <int R>
void store_first(float* out, __m128 x) {
    if constexpr (R == kRows) {
        _mm_storeu_ps(out, x);
    } else {
        float all[kRows];
        _mm_storeu_ps(all, x);
        std::copy_n(all, R, out);
    }
}

// R <= kRows rows. kCount: n if it is known at compile time, otherwise 0.
template <int kCount, int R>
void fold_rows(const float* a, int a_stride, const float* scale, const float* zero, float middle, int count, int8_t* w,
               float* step, float* bias) {
    const int n = kCount > 0 ? kCount : count;
    WideFloat largest[kRows];
    WideFloat zeros[kRows];  // sum of a * zero
    WideFloat sums[kRows];   // sum of a * scale
    __m256i codes[kRows];    // sum of w
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
        largest[r] = zeros[r] = sums[r] = set_floats<WideFloat>(0.0f);
        codes[r] = _mm256_setzero_si256();
    }
    for (int i = 0; i < n; i += kLanes) {
        const WideFloat s = load_floats<WideFloat>(scale + i);
        const WideFloat z = load_floats<WideFloat>(zero + i);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const WideFloat x = load_floats<WideFloat>(a + r * a_stride + i);
            const WideFloat product = multiply(x, s);
            largest[r] = wide_max(largest[r], wide_abs(product));
            zeros[r] = multiply_add(x, z, zeros[r]);
            sums[r] = add(sums[r], product);
        }
    }
    const __m128 top = max_rows(largest);
    const __m128 steps = _mm_div_ps(top, _mm_set1_ps(127.0f));
    alignas(16) float inverse[kRows];
    _mm_store_ps(inverse, finite_quotients(127.0f, top));
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        codes[r] = round_row(a + r * a_stride, scale, inverse[r], n, w + r * n);
    }
    // The total rounding error of the weights is sum(a * scale) - step * sum(w).
    const __m128 lost = _mm_fnmadd_ps(steps, _mm_cvtepi32_ps(sum_rows(codes)), sum_rows(sums));
    store_first<R>(step, steps);
    store_first<R>(bias, _mm_fmadd_ps(_mm_set1_ps(middle), lost, sum_rows(zeros)));
}

template <int kCount>
void fold_all(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
              int8_t* w, float* step, float* bias) {
    for_columns<kRows>(n_rows, [&]<int R>(std::integral_constant<int, R>, int r) {
        fold_rows<kCount, R>(a + r * a_stride, a_stride, scale, zero, middle, n, w + r * n, step + r, bias + r);
    });
}

}  // namespace

void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias) {
    constexpr int kValues = 32;  // tokens of a block of values
    const auto all = n == kValues ? fold_all<kValues> : fold_all<0>;
    all(a, a_stride, n_rows, scale, zero, middle, n, w, step, bias);
}

}  // namespace lk::cpu::LK_SIMD
