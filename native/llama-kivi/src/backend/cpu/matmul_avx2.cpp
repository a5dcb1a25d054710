// AVX2 matmul of quantized weights with int8 activations.
//
// For a few tokens, weight rows are read in file layout: blocks of 32 are summed in floats with a scale per block;
// blocks of 256 are summed in integers with their integer scales, and multiplied by the float scale once. For more
// tokens, rows are unpacked to tiles that the tokens share (tiles_avx2.h).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "backend/cpu/formats_avx2.h"
#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"
#include "backend/cpu/tiles_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

template <class Format>
float dot_plain(const uint8_t* row, int64_t n, const QuantizedRow& x) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};  // two independent chains of additions
    float min_sum = 0;
    const auto* blocks = reinterpret_cast<const typename Format::Block*>(row);
    const auto add_block = [&](int64_t i, __m256& total) {
        const Format format(blocks[i]);
        const __m256i codes = format.codes();
        const __m256i a = load32(x.plain.q + i * 32);
        const __m256i products =
            Format::kOffset != 0 ? dot_u8_i8(_mm256_abs_epi8(codes), _mm256_sign_epi8(a, codes)) : dot_u8_i8(codes, a);
        const __m256 d = _mm256_set1_ps(format.scale() * x.plain.d[i]);
        total = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(products), total);
        if constexpr (Format::kOffset == 0) {
            min_sum += format.min() * x.plain.sum[i];
        }
    };
    int64_t i = 0;
    for (; i + 2 <= n / 32; i += 2) {
        add_block(i, sum[0]);
        add_block(i + 1, sum[1]);
    }
    if (i < n / 32) {
        add_block(i, sum[0]);
    }
    return sum_lanes(_mm256_add_ps(sum[0], sum[1])) + min_sum;
}

template <class Format>
float dot_super(const uint8_t* row, int64_t n, const QuantizedRow& x) {
    __m256 sum = _mm256_setzero_ps();
    const auto* blocks = reinterpret_cast<const typename Format::Block*>(row);
    for (int64_t block = 0; block < n / kSuperBlock; ++block) {
        const Format format(blocks[block]);
        __m256i products = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const __m256i a = load32(x.super.q + block * kSuperBlock + i * 32);
            products = add_dot_i16(products, _mm256_maddubs_epi16(format.codes(i), a), format.scales(i));
        }
        const __m256i sums = _mm256_madd_epi16(load32(x.super.sums + block * 16), format.sum_scale);
        const float d = x.super.d[block];
        sum = _mm256_fmadd_ps(_mm256_set1_ps(d * format.factor()), _mm256_cvtepi32_ps(products), sum);
        sum = _mm256_fmadd_ps(_mm256_set1_ps(d * format.sum_factor()), _mm256_cvtepi32_ps(sums), sum);
    }
    return sum_lanes(sum);
}

template <class Format>
float dot_float(const uint8_t* row, int64_t n, const QuantizedRow& x) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 2; ++j) {
            const __m256 w = Format::load8(row + (i + 8 * j) * Format::kBytes);
            sum[j] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x.x + i + 8 * j), sum[j]);
        }
    }
    float total = sum_lanes(_mm256_add_ps(sum[0], sum[1]));
    for (; i < n; ++i) {
        total += Format::load(row + i * Format::kBytes) * x.x[i];
    }
    return total;
}

template <class Format>
float dot_row(const uint8_t* row, int64_t n, const QuantizedRow& x) {
    if constexpr (kIsFloat<Format>) {
        return dot_float<Format>(row, n, x);
    } else if constexpr (kSuper<Format>) {
        return dot_super<Format>(row, n, x);
    } else {
        return dot_plain<Format>(row, n, x);
    }
}

float round_to_half(float x) {
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
}

// Quantizes n activations with one scale. Returns the scale, largest / 127; it is NaN or infinite if an activation is.
float quantize_block(const float* x, int n, int8_t* q) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    // Compares the bits of magnitudes, which put NaN above infinity; a float maximum would drop NaN.
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8) {
        largest = _mm256_max_epi32(largest, _mm256_and_si256(load32(x + i), magnitude));
    }
    const float top = std::bit_cast<float>(max_lanes(largest));
    const __m256 inverse = _mm256_set1_ps(finite_quotient(127.0f, top));
    for (int i = 0; i < n; i += 32) {
        __m256i codes[4];
        for (int j = 0; j < 4; ++j) {
            codes[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * j), inverse));
        }
        const __m256i packed =
            _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), _mm256_permutevar8x32_epi32(packed, order));
    }
    return top / 127.0f;
}

}  // namespace

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum) {
    for (int b = 0; b < n / 32; ++b) {
        const float scale = quantize_block(x + b * 32, 32, q + b * 32);
        const __m256i ones = _mm256_set1_epi8(1);
        q_sum[b] = sum_lanes(dot_u8_i8(ones, load32(q + b * 32)));
        d[b] = round_to_half(scale);
        sum[b] = round_to_half(scale * static_cast<float>(q_sum[b]));
    }
}

void quantize_super(const float* x, int n, int8_t* q, float* d, int16_t* sums) {
    for (int b = 0; b < n / kSuperBlock; ++b) {
        d[b] = quantize_block(x + b * kSuperBlock, kSuperBlock, q + b * kSuperBlock);
    }
    for (int i = 0; i < n / 16; ++i) {
        const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + i * 16));
        sums[i] = static_cast<int16_t>(sum_lanes(_mm256_madd_epi16(_mm256_cvtepi8_epi16(codes), _mm256_set1_epi16(1))));
    }
}

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride) {
    if (n_cols >= kTileMinColumns) {
        row_begin = matmul_tiles(w, row_begin, row_end, x, n_cols, y, y_stride);
    }
    with_format(w.type, [&]<class Format>(std::type_identity<Format>) {
        for (int c = 0; c < n_cols; ++c) {
            for (int64_t r = row_begin; r < row_end; ++r) {
                y[c * y_stride + r] = dot_row<Format>(w.data + r * w.row_bytes, w.n_cols, x[c]);
            }
        }
    });
}

}  // namespace lk::cpu::LK_SIMD
