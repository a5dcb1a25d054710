// Products of quantized weight rows with int8 activations in AVX2.
//
// A format is a struct that opens a block and gives, 32 weights at a time: their integer codes, the scale of each lane
// of the sum, and (formats with a minimum) what to add per unit of the activations' sum. One loop serves all.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::avx2 {

namespace {

__m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// 16 bytes of nibbles as 32 codes: low nibbles first.
__m256i nibbles(const uint8_t* qs) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
}

// 32 bits as 32 bytes, 16 where the bit is set.
__m256i fifth_bits(const uint8_t* qh) {
    int bits;
    std::memcpy(&bits, qh, 4);
    const __m256i spread = _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const __m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(x, each), each), _mm256_set1_epi8(16));
}

struct Q8_0 {
    using Block = BlockQ8_0;
    static constexpr int kParts = 1;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q8_0(const Block& block) : b(block) {}
    __m256i codes(int) const { return load32(b.qs); }
    __m256 scale(int) const { return _mm256_set1_ps(_cvtsh_ss(b.d)); }
    float min(int) const { return 0; }
};

struct Q4_0 {
    using Block = BlockQ4_0;
    static constexpr int kParts = 1;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q4_0(const Block& block) : b(block) {}
    __m256i codes(int) const { return _mm256_sub_epi8(nibbles(b.qs), _mm256_set1_epi8(8)); }
    __m256 scale(int) const { return _mm256_set1_ps(_cvtsh_ss(b.d)); }
    float min(int) const { return 0; }
};

struct Q4_1 {
    using Block = BlockQ4_1;
    static constexpr int kParts = 1;
    static constexpr bool kSigned = false;
    static constexpr bool kMin = true;
    const Block& b;
    explicit Q4_1(const Block& block) : b(block) {}
    __m256i codes(int) const { return nibbles(b.qs); }
    __m256 scale(int) const { return _mm256_set1_ps(_cvtsh_ss(b.d)); }
    float min(int) const { return _cvtsh_ss(b.m); }
};

struct Q5_0 {
    using Block = BlockQ5_0;
    static constexpr int kParts = 1;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q5_0(const Block& block) : b(block) {}
    __m256i codes(int) const {
        return _mm256_sub_epi8(_mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)), _mm256_set1_epi8(16));
    }
    __m256 scale(int) const { return _mm256_set1_ps(_cvtsh_ss(b.d)); }
    float min(int) const { return 0; }
};

struct Q5_1 {
    using Block = BlockQ5_1;
    static constexpr int kParts = 1;
    static constexpr bool kSigned = false;
    static constexpr bool kMin = true;
    const Block& b;
    explicit Q5_1(const Block& block) : b(block) {}
    __m256i codes(int) const { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
    __m256 scale(int) const { return _mm256_set1_ps(_cvtsh_ss(b.d)); }
    float min(int) const { return _cvtsh_ss(b.m); }
};

struct Q4_K {
    using Block = BlockQ4_K;
    static constexpr int kParts = 8;
    static constexpr bool kSigned = false;
    static constexpr bool kMin = true;
    const Block& b;
    alignas(32) float scales[8];
    alignas(32) float mins[8];
    explicit Q4_K(const Block& block) : b(block) {
        // The twelve bytes hold eight scales and eight minimums of six bits: unpack four of each at a time.
        uint32_t w[3];
        std::memcpy(w, b.scales, 12);
        const uint32_t s0 = w[0] & 0x3f3f3f3fu;
        const uint32_t m0 = w[1] & 0x3f3f3f3fu;
        const uint32_t s1 = (w[2] & 0x0f0f0f0fu) | (((w[0] >> 6) & 0x03030303u) << 4);
        const uint32_t m1 = ((w[2] >> 4) & 0x0f0f0f0fu) | (((w[1] >> 6) & 0x03030303u) << 4);
        const auto widen = [](uint32_t lo, uint32_t hi) {
            return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, static_cast<int>(hi), static_cast<int>(lo))));
        };
        _mm256_store_ps(scales, _mm256_mul_ps(_mm256_set1_ps(_cvtsh_ss(b.d)), widen(s0, s1)));
        _mm256_store_ps(mins, _mm256_mul_ps(_mm256_set1_ps(-_cvtsh_ss(b.dmin)), widen(m0, m1)));
    }
    __m256i codes(int i) const {
        const __m256i x = load32(b.qs + i / 2 * 32);
        return _mm256_and_si256(i % 2 ? _mm256_srli_epi16(x, 4) : x, _mm256_set1_epi8(15));
    }
    __m256 scale(int i) const { return _mm256_broadcast_ss(scales + i); }
    float min(int i) const { return mins[i]; }
};

struct Q6_K {
    using Block = BlockQ6_K;
    static constexpr int kParts = 8;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    alignas(32) float scales[16];
    explicit Q6_K(const Block& block) : b(block) {
        const __m256 d = _mm256_set1_ps(_cvtsh_ss(b.d));
        for (int i = 0; i < 16; i += 8) {
            const __m128i s = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.scales + i));
            _mm256_store_ps(scales + i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s))));
        }
    }
    __m256i codes(int i) const {
        const int half = i / 4;  // 128 elements
        const int part = i % 4;  // 32 of them
        const __m256i low = load32(b.ql + 64 * half + 32 * (part % 2));
        const __m256i high = _mm256_srl_epi16(load32(b.qh + 32 * half), _mm_cvtsi32_si128(2 * part));
        const __m256i q = _mm256_or_si256(_mm256_and_si256(part / 2 ? _mm256_srli_epi16(low, 4) : low, _mm256_set1_epi8(15)),
                                          _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
        return _mm256_sub_epi8(q, _mm256_set1_epi8(32));
    }
    // The lower lanes sum the first 16 elements, the upper lanes the others.
    __m256 scale(int i) const { return _mm256_set_m128(_mm_broadcast_ss(scales + 2 * i + 1), _mm_broadcast_ss(scales + 2 * i)); }
    float min(int) const { return 0; }
};

// y[col] = dot(row, x[col]) for kCols columns: the codes of a part are unpacked once for all.
template <class Format, int kCols>
void dot_row(const uint8_t* row, int64_t n, const QuantizedRow* x, float* y, int64_t y_stride) {
    __m256 sum[kCols];
    float min_sum[kCols] = {};
    for (__m256& s : sum) {
        s = _mm256_setzero_ps();
    }
    const auto* blocks = reinterpret_cast<const typename Format::Block*>(row);
    for (int64_t part = 0; part < n / 32; part += Format::kParts) {
        const Format format(blocks[part / Format::kParts]);
#pragma GCC unroll 8
        for (int i = 0; i < Format::kParts; ++i) {
            const __m256i codes = format.codes(i);
            const __m256 scale = format.scale(i);
            const __m256i magnitude = Format::kSigned ? _mm256_abs_epi8(codes) : codes;
#pragma GCC unroll 4
            for (int c = 0; c < kCols; ++c) {
                __m256i a = load32(x[c].q + (part + i) * 32);
                if constexpr (Format::kSigned) {
                    a = _mm256_sign_epi8(a, codes);
                }
                const __m256 d = _mm256_mul_ps(scale, _mm256_broadcast_ss(x[c].d + part + i));
                sum[c] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(dot_u8_i8(magnitude, a)), sum[c]);
                if constexpr (Format::kMin) {
                    min_sum[c] += format.min(i) * x[c].sum[part + i];
                }
            }
        }
    }
    for (int c = 0; c < kCols; ++c) {
        y[c * y_stride] = sum_lanes(sum[c]) + min_sum[c];
    }
}

template <class Format>
void matmul_format(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y, int64_t y_stride) {
    int c = 0;
    for (; c + 4 <= n_cols; c += 4) {
        for (int64_t r = row_begin; r < row_end; ++r) {
            dot_row<Format, 4>(w.data + r * w.row_bytes, w.n_cols, x + c, y + c * y_stride + r, y_stride);
        }
    }
    for (; c < n_cols; ++c) {
        for (int64_t r = row_begin; r < row_end; ++r) {
            dot_row<Format, 1>(w.data + r * w.row_bytes, w.n_cols, x + c, y + c * y_stride + r, y_stride);
        }
    }
}

template <bool kHalf>
void matmul_float(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y, int64_t y_stride) {
    const int64_t n = w.n_cols;
    for (int c = 0; c < n_cols; ++c) {
        for (int64_t r = row_begin; r < row_end; ++r) {
            const uint8_t* row = w.data + r * w.row_bytes;
            __m256 sum = _mm256_setzero_ps();
            int64_t i = 0;
            for (; i + 8 <= n; i += 8) {
                const __m256 v = kHalf ? load_half8(row + i * 2) : _mm256_loadu_ps(reinterpret_cast<const float*>(row) + i);
                sum = _mm256_fmadd_ps(v, _mm256_loadu_ps(x[c].x + i), sum);
            }
            float total = sum_lanes(sum);
            for (; i < n; ++i) {
                half_t h = 0;
                float v = 0;
                kHalf ? std::memcpy(&h, row + i * 2, 2) : std::memcpy(&v, row + i * 4, 4);
                total += (kHalf ? half_to_float(h) : v) * x[c].x[i];
            }
            y[c * y_stride + r] = total;
        }
    }
}

}  // namespace

void quantize_row(const float* x, int n, int8_t* q, float* d, float* sum) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int b = 0; b < n / 32; ++b) {
        __m256 v[4];
        __m256 largest = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_loadu_ps(x + b * 32 + 8 * i);
            largest = _mm256_max_ps(largest, abs_ps(v[i]));
        }
        const float top = max_lanes(largest);
        const __m256 inverse = _mm256_set1_ps(top > 0 ? 127.0f / top : 0.0f);
        __m256i codes[4];
        __m256i total = _mm256_setzero_si256();
        for (int i = 0; i < 4; ++i) {
            codes[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
            total = _mm256_add_epi32(total, codes[i]);
        }
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + b * 32), _mm256_permutevar8x32_epi32(packed, order));
        d[b] = top / 127.0f;
        sum[b] = d[b] * static_cast<float>(sum_lanes(total));
    }
}

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y, int64_t y_stride) {
    const auto run = [&](auto kernel) { kernel(w, row_begin, row_end, x, n_cols, y, y_stride); };
    switch (w.type) {
    case WeightType::F32:
        return run(matmul_float<false>);
    case WeightType::F16:
        return run(matmul_float<true>);
    case WeightType::Q4_0:
        return run(matmul_format<Q4_0>);
    case WeightType::Q4_1:
        return run(matmul_format<Q4_1>);
    case WeightType::Q5_0:
        return run(matmul_format<Q5_0>);
    case WeightType::Q5_1:
        return run(matmul_format<Q5_1>);
    case WeightType::Q8_0:
        return run(matmul_format<Q8_0>);
    case WeightType::Q4_K:
        return run(matmul_format<Q4_K>);
    case WeightType::Q6_K:
        return run(matmul_format<Q6_K>);
    default:
        return portable_kernels().matmul(w, row_begin, row_end, x, n_cols, y, y_stride);
    }
}

}  // namespace lk::cpu::avx2
