// The AVX2 table and its elementwise kernels.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

void rms_norm(const float* x, const float* weight, float eps, int dim, float* out) {
    __m256 square = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= dim; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        square = _mm256_fmadd_ps(v, v, square);
    }
    float total = sum_lanes(square);
    for (; i < dim; ++i) {
        total += x[i] * x[i];
    }
    const float factor = norm_factor(total / static_cast<float>(dim), eps);
    const __m256 f = _mm256_set1_ps(factor);
    for (i = 0; i + 8 <= dim; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), f), _mm256_loadu_ps(weight + i)));
    }
    for (; i < dim; ++i) {
        out[i] = x[i] * factor * weight[i];
    }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int dim, float* out) {
    __m256 sum = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= dim; i += 8) {
        sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + i));
    }
    float total = sum_lanes(sum);
    for (; i < dim; ++i) {
        total += x[i];
    }
    const float mean = total / static_cast<float>(dim);
    const __m256 m = _mm256_set1_ps(mean);
    __m256 square = _mm256_setzero_ps();
    for (i = 0; i + 8 <= dim; i += 8) {
        const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), m);
        square = _mm256_fmadd_ps(v, v, square);
    }
    total = sum_lanes(square);
    for (; i < dim; ++i) {
        total += (x[i] - mean) * (x[i] - mean);
    }
    const float factor = norm_factor(total / static_cast<float>(dim), eps);
    const __m256 f = _mm256_set1_ps(factor);
    for (i = 0; i + 8 <= dim; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), m), f);
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(v, _mm256_loadu_ps(weight + i), _mm256_loadu_ps(bias + i)));
    }
    for (; i < dim; ++i) {
        out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
    }
}

// erf from Abramowitz and Stegun 7.1.26: 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x), error below 1.5e-7.
void gelu(float* x, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256 a = abs_ps(_mm256_mul_ps(v, _mm256_set1_ps(0.70710678f)));
        const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(a, _mm256_set1_ps(0.3275911f), one));
        __m256 p = _mm256_set1_ps(1.061405429f);
        for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) {
            p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(c));
        }
        const __m256 tail = _mm256_mul_ps(_mm256_mul_ps(p, t), exp_ps(_mm256_mul_ps(_mm256_xor_ps(a, sign), a)));
        const __m256 erf = _mm256_or_ps(_mm256_sub_ps(one, tail), _mm256_and_ps(v, sign));
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_mul_ps(v, _mm256_set1_ps(0.5f)), _mm256_add_ps(one, erf)));
    }
    portable_kernels().gelu(x + i, n - i);
}

void swiglu(float* gate, const float* up, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 sigmoid = _mm256_div_ps(g, _mm256_add_ps(one, exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), g))));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(sigmoid, _mm256_loadu_ps(up + i)));
    }
    portable_kernels().swiglu(gate + i, up + i, n - i);
}

void add(float* x, const float* y, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    }
    portable_kernels().add(x + i, y + i, n - i);
}

bool finite(const float* x, int64_t n, int64_t n_rows, int64_t stride) {
    // Finds the largest exponent: NaN and infinity have the largest possible one.
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256i most = _mm256_setzero_si256();
    for (int64_t r = 0; r < n_rows; ++r) {
        for (int64_t i = 0; i + 8 <= n; i += 8) {
            most = _mm256_max_epi32(most, _mm256_and_si256(load32(x + r * stride + i), exponent));
        }
    }
    const int64_t whole = n / 8 * 8;
    return max_lanes(most) != 0x7f800000 &&
           (whole == n || portable_kernels().finite(x + whole, n - whole, n_rows, stride));
}

void half_row(const float* x, int64_t n, half_t* out) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), h);
    }
    portable_kernels().half_row(x + i, n - i, out + i);
}

float softmax_part(float* x, int n, float max) {
    const WideFloat m = set_floats<WideFloat>(max);
    WideFloat sum = set_floats<WideFloat>(0.0f);
    const auto exponentials = [&](float* part) {
        const WideFloat e = wide_exp(wide_subtract(load_floats<WideFloat>(part), m));
        store_floats(part, e);
        sum = LK_SIMD::add(sum, e);
    };
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        exponentials(x + i);
    }
    if (i < n) {
        float last[kLanes];
        std::fill_n(last, kLanes, -std::numeric_limits<float>::infinity());
        std::copy_n(x + i, n - i, last);
        exponentials(last);
        std::copy_n(last, n - i, x + i);
    }
    return sum_lanes(sum);
}

float max_of(const float* x, int n) {
    if (n < 8) {
        return portable_kernels().max(x, n);
    }
    __m256 m = _mm256_loadu_ps(x);
    for (int i = 8; i + 8 <= n; i += 8) {
        m = _mm256_max_ps(m, _mm256_loadu_ps(x + i));
    }
    return max_lanes(_mm256_max_ps(m, _mm256_loadu_ps(x + n - 8)));
}

float sum(const float* x, int n) {
    constexpr int kChains = 4;  // additions that do not wait for each other
    WideFloat total[kChains];
    std::fill_n(total, kChains, set_floats<WideFloat>(0.0f));
    int i = 0;
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
        for (int chain = 0; chain < kChains; ++chain) {
            total[chain] = LK_SIMD::add(total[chain], load_floats<WideFloat>(x + i + chain * kLanes));
        }
    }
    for (; i + kLanes <= n; i += kLanes) {
        total[0] = LK_SIMD::add(total[0], load_floats<WideFloat>(x + i));
    }
    const WideFloat all = LK_SIMD::add(LK_SIMD::add(total[0], total[1]), LK_SIMD::add(total[2], total[3]));
    return sum_lanes(all) + portable_kernels().sum(x + i, n - i);
}

void scale(float* x, int n, float factor) {
    const __m256 f = _mm256_set1_ps(factor);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), f));
    }
    portable_kernels().scale(x + i, n - i, factor);
}

}  // namespace

const Kernels& kernels() {
    static const Kernels table{
#ifdef LK_VNNI
        "AVX-512 VNNI",
#else
        "AVX2",
#endif
        LK_SIMD::quantize_plain,
        LK_SIMD::quantize_super,
        LK_SIMD::matmul,
        rms_norm,
        layer_norm,
        swiglu,
        gelu,
        add,
        finite,
        half_row,
        softmax_part,
        max_of,
        sum,
        scale,
        LK_SIMD::score_exact,
        LK_SIMD::accumulate_exact,
        LK_SIMD::score_floats,
        LK_SIMD::accumulate_floats,
        LK_SIMD::half_blocks,
        LK_SIMD::unpack_codes,
        LK_SIMD::fold,
        LK_SIMD::dot_codes,
        LK_SIMD::score_packed,
        LK_SIMD::accumulate_packed,
        LK_SIMD::decode_byte_scales,
        LK_SIMD::square_sum,
    };
    return table;
}

}  // namespace lk::cpu::LK_SIMD
