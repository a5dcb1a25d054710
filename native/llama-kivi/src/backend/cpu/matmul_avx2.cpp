// Products of quantized weight rows with int8 activations in AVX2.
//
// A format is a struct that opens a block and gives its weights as integer codes, 32 at a time, with their scales.
// Blocks of 32 sum in floats, a scale a block; blocks of 256 sum in integers, scaled by the block's own small integers,
// and meet the float scale once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

__m256i load32(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// 16 bytes of nibbles as 32 codes: low nibbles first.
__m256i nibbles(const uint8_t* qs) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
}

// 32 bits as 32 bytes, 16 where the bit is set.
__m256i fifth_bits(const uint8_t* qh) {
    int bits;
    std::memcpy(&bits, qh, 4);
    const __m256i spread =
        _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const __m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(x, each), each), _mm256_set1_epi8(16));
}

struct Q8_0 {
    using Block = BlockQ8_0;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q8_0(const Block& block) : b(block) {}
    __m256i codes() const { return load32(b.qs); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return 0; }
};

struct Q4_0 {
    using Block = BlockQ4_0;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q4_0(const Block& block) : b(block) {}
    __m256i codes() const { return _mm256_sub_epi8(nibbles(b.qs), _mm256_set1_epi8(8)); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return 0; }
};

struct Q4_1 {
    using Block = BlockQ4_1;
    static constexpr bool kSigned = false;
    static constexpr bool kMin = true;
    const Block& b;
    explicit Q4_1(const Block& block) : b(block) {}
    __m256i codes() const { return nibbles(b.qs); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return _cvtsh_ss(b.m); }
};

struct Q5_0 {
    using Block = BlockQ5_0;
    static constexpr bool kSigned = true;
    static constexpr bool kMin = false;
    const Block& b;
    explicit Q5_0(const Block& block) : b(block) {}
    __m256i codes() const {
        return _mm256_sub_epi8(_mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)), _mm256_set1_epi8(16));
    }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return 0; }
};

struct Q5_1 {
    using Block = BlockQ5_1;
    static constexpr bool kSigned = false;
    static constexpr bool kMin = true;
    const Block& b;
    explicit Q5_1(const Block& block) : b(block) {}
    __m256i codes() const { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return _cvtsh_ss(b.m); }
};

// Blocks of 256. codes(i): 32 codes; scales(i): the 16-bit factor of each pair of products of codes(i); sum_scale and
// sum_factor: 16-bit factors of the sums of 16 activations, and the float they are worth.

// 16 scales of 16 elements each: products 0-7 of codes(i) belong to the first 16 elements, 8-15 to the others.
__m256i scale_pair(const int16_t* scale, int i) {
    return _mm256_set_m128i(_mm_set1_epi16(scale[2 * i + 1]), _mm_set1_epi16(scale[2 * i]));
}

// Codes 32 i to 32 i + 31 of the two bits of Q2_K and Q3_K.
__m256i two_bits(const uint8_t* qs, int i) {
    const __m256i x = _mm256_srl_epi16(load32(qs + 32 * (i / 4)), _mm_cvtsi32_si128(2 * (i % 4)));
    return _mm256_and_si256(x, _mm256_set1_epi8(3));
}

struct Q2_K {
    using Block = BlockQ2_K;
    const Block& b;
    __m256i sum_scale;  // of each 16 elements
    alignas(32) int16_t scale[16];
    explicit Q2_K(const Block& block) : b(block) {
        const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales));
        const __m128i nibble = _mm_set1_epi8(15);
        sum_scale = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(pairs, 4), nibble));
        _mm256_store_si256(reinterpret_cast<__m256i*>(scale), _mm256_cvtepu8_epi16(_mm_and_si128(pairs, nibble)));
    }
    __m256i codes(int i) const { return two_bits(b.qs, i); }
    __m256i scales(int i) const { return scale_pair(scale, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -_cvtsh_ss(b.dmin); }
};

struct Q3_K {
    using Block = BlockQ3_K;
    const Block& b;
    __m256i sum_scale;
    alignas(32) int16_t scale[16];
    explicit Q3_K(const Block& block) : b(block) {
        for (int j = 0; j < 16; ++j) {
            scale[j] = static_cast<int16_t>(get_scale_q3_k(j, b.scales));
        }
        sum_scale = load32(scale);
    }
    __m256i codes(int i) const {
        const __m256i high = _mm256_srl_epi16(load32(b.hmask), _mm_cvtsi32_si128(i));
        return _mm256_or_si256(two_bits(b.qs, i), _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(1)), 2));
    }
    __m256i scales(int i) const { return scale_pair(scale, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -4.0f * _cvtsh_ss(b.d); }  // the codes are 4 above their meaning
};

// Codes 32 i to 32 i + 31 where 32 bytes hold 64 elements, low nibbles first.
__m256i nibbles_of_64(const uint8_t* qs, int i) {
    const __m256i x = load32(qs + i / 2 * 32);
    return _mm256_and_si256(i % 2 ? _mm256_srli_epi16(x, 4) : x, _mm256_set1_epi8(15));
}

// Blocks with eight pairs of 6-bit scales and minimums.
struct SixBitPairs {
    alignas(16) uint16_t scale[8];
    __m256i sum_scale;  // each minimum twice: it covers two sums of 16
    explicit SixBitPairs(const uint8_t* scales) {
        // The twelve bytes hold eight scales and eight minimums of six bits: unpack four of each at a time.
        uint32_t w[3];
        std::memcpy(w, scales, 12);
        const uint32_t s0 = w[0] & 0x3f3f3f3fu;
        const uint32_t m0 = w[1] & 0x3f3f3f3fu;
        const uint32_t s1 = (w[2] & 0x0f0f0f0fu) | (((w[0] >> 6) & 0x03030303u) << 4);
        const uint32_t m1 = ((w[2] >> 4) & 0x0f0f0f0fu) | (((w[1] >> 6) & 0x03030303u) << 4);
        const auto bytes = [](uint32_t lo, uint32_t hi) {
            return _mm_set_epi32(0, 0, static_cast<int>(hi), static_cast<int>(lo));
        };
        _mm_store_si128(reinterpret_cast<__m128i*>(scale), _mm_cvtepu8_epi16(bytes(s0, s1)));
        const __m128i mins = bytes(m0, m1);
        sum_scale = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins));
    }
    __m256i scales(int i) const { return _mm256_set1_epi16(static_cast<short>(scale[i])); }
};

struct Q4_K : SixBitPairs {
    using Block = BlockQ4_K;
    const Block& b;
    explicit Q4_K(const Block& block) : SixBitPairs(block.scales), b(block) {}
    __m256i codes(int i) const { return nibbles_of_64(b.qs, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -_cvtsh_ss(b.dmin); }
};

struct Q5_K : SixBitPairs {
    using Block = BlockQ5_K;
    const Block& b;
    explicit Q5_K(const Block& block) : SixBitPairs(block.scales), b(block) {}
    __m256i codes(int i) const {
        const __m256i high = _mm256_srl_epi16(load32(b.qh), _mm_cvtsi32_si128(i));
        return _mm256_or_si256(nibbles_of_64(b.qs, i),
                               _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(1)), 4));
    }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -_cvtsh_ss(b.dmin); }
};

struct Q6_K {
    using Block = BlockQ6_K;
    const Block& b;
    __m256i sum_scale;  // of each 16 elements
    alignas(32) int16_t scale[16];
    explicit Q6_K(const Block& block) : b(block) {
        sum_scale = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(scale), sum_scale);
    }
    __m256i codes(int i) const {
        const int half = i / 4;  // 128 elements
        const int part = i % 4;  // 32 of them
        const __m256i low = load32(b.ql + 64 * half + 32 * (part % 2));
        const __m256i high = _mm256_srl_epi16(load32(b.qh + 32 * half), _mm_cvtsi32_si128(2 * part));
        return _mm256_or_si256(_mm256_and_si256(part / 2 ? _mm256_srli_epi16(low, 4) : low, _mm256_set1_epi8(15)),
                               _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
    }
    __m256i scales(int i) const { return scale_pair(scale, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -32.0f * _cvtsh_ss(b.d); }  // the codes are 32 above their meaning
};

// y[col] = dot(row, x[col]) for kCols columns: the codes are unpacked once for all.
template <class Format, int kCols>
void dot_plain(const uint8_t* row, int64_t n, const QuantizedRow* x, float* y, int64_t y_stride) {
    __m256 sum[kCols];
    float min_sum[kCols] = {};
    for (__m256& s : sum) {
        s = _mm256_setzero_ps();
    }
    const auto* blocks = reinterpret_cast<const typename Format::Block*>(row);
    for (int64_t i = 0; i < n / 32; ++i) {
        const Format format(blocks[i]);
        const __m256i codes = format.codes();
        const __m256i magnitude = Format::kSigned ? _mm256_abs_epi8(codes) : codes;
        const float scale = format.scale();
#pragma GCC unroll 8
        for (int c = 0; c < kCols; ++c) {
            __m256i a = load32(x[c].plain.q + i * 32);
            if constexpr (Format::kSigned) {
                a = _mm256_sign_epi8(a, codes);
            }
            const __m256 d = _mm256_set1_ps(scale * x[c].plain.d[i]);
            sum[c] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(dot_u8_i8(magnitude, a)), sum[c]);
            if constexpr (Format::kMin) {
                min_sum[c] += format.min() * x[c].plain.sum[i];
            }
        }
    }
    for (int c = 0; c < kCols; ++c) {
        y[c * y_stride] = sum_lanes(sum[c]) + min_sum[c];
    }
}

template <class Format, int kCols>
void dot_super(const uint8_t* row, int64_t n, const QuantizedRow* x, float* y, int64_t y_stride) {
    __m256 sum[kCols];
    for (__m256& s : sum) {
        s = _mm256_setzero_ps();
    }
    const auto* blocks = reinterpret_cast<const typename Format::Block*>(row);
    for (int64_t block = 0; block < n / kSuperBlock; ++block) {
        const Format format(blocks[block]);
        __m256i products[kCols];
        for (__m256i& p : products) {
            p = _mm256_setzero_si256();
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const __m256i codes = format.codes(i);
            const __m256i scales = format.scales(i);
#pragma GCC unroll 8
            for (int c = 0; c < kCols; ++c) {
                const __m256i pairs = _mm256_maddubs_epi16(codes, load32(x[c].super.q + block * kSuperBlock + i * 32));
                products[c] = add_dot_i16(products[c], pairs, scales);
            }
        }
        for (int c = 0; c < kCols; ++c) {
            const __m256i sums = _mm256_madd_epi16(load32(x[c].super.sums + block * 16), format.sum_scale);
            const float d = x[c].super.d[block];
            sum[c] = _mm256_fmadd_ps(_mm256_set1_ps(d * format.factor()), _mm256_cvtepi32_ps(products[c]), sum[c]);
            sum[c] = _mm256_fmadd_ps(_mm256_set1_ps(d * format.sum_factor()), _mm256_cvtepi32_ps(sums), sum[c]);
        }
    }
    for (int c = 0; c < kCols; ++c) {
        y[c * y_stride] = sum_lanes(sum[c]);
    }
}

template <class Format, int kCols>
void dot_row(const uint8_t* row, int64_t n, const QuantizedRow* x, float* y, int64_t y_stride) {
    if constexpr (sizeof(typename Format::Block) >= sizeof(BlockQ2_K)) {
        dot_super<Format, kCols>(row, n, x, y, y_stride);
    } else {
        dot_plain<Format, kCols>(row, n, x, y, y_stride);
    }
}

// Columns that share the unpacking of a block's codes: what the registers hold (16, with AVX-512 32).
#ifdef LK_VNNI
constexpr int kTileColumns = 8;
#else
constexpr int kTileColumns = 4;
#endif

template <class Format>
void matmul_format(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                   int64_t y_stride) {
    int c = 0;
    const auto tiles = [&]<int kCols>(std::integral_constant<int, kCols>) {
        for (; c + kCols <= n_cols; c += kCols) {
            for (int64_t r = row_begin; r < row_end; ++r) {
                dot_row<Format, kCols>(w.data + r * w.row_bytes, w.n_cols, x + c, y + c * y_stride + r, y_stride);
            }
        }
    };
    tiles(std::integral_constant<int, kTileColumns>());
    tiles(std::integral_constant<int, 4>());
    tiles(std::integral_constant<int, 1>());
}

// Weights that are floats of some width, eight at a time and one at a time.
struct F32 {
    static constexpr int kBytes = 4;
    static __m256 load8(const uint8_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
    static float load(const uint8_t* p) {
        float x;
        std::memcpy(&x, p, kBytes);
        return x;
    }
};

struct F16 {
    static constexpr int kBytes = 2;
    static __m256 load8(const uint8_t* p) { return load_half8(p); }
    static float load(const uint8_t* p) {
        half_t x;
        std::memcpy(&x, p, kBytes);
        return half_to_float(x);
    }
};

struct BF16 {
    static constexpr int kBytes = 2;
    static __m256 load8(const uint8_t* p) {
        const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    }
    static float load(const uint8_t* p) {
        uint16_t x;
        std::memcpy(&x, p, kBytes);
        return bf16_to_float(x);
    }
};

template <class Float>
void matmul_float(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                  int64_t y_stride) {
    const int64_t n = w.n_cols;
    for (int c = 0; c < n_cols; ++c) {
        for (int64_t r = row_begin; r < row_end; ++r) {
            const uint8_t* row = w.data + r * w.row_bytes;
            __m256 sum = _mm256_setzero_ps();
            int64_t i = 0;
            for (; i + 8 <= n; i += 8) {
                sum = _mm256_fmadd_ps(Float::load8(row + i * Float::kBytes), _mm256_loadu_ps(x[c].x + i), sum);
            }
            float total = sum_lanes(sum);
            for (; i < n; ++i) {
                total += Float::load(row + i * Float::kBytes) * x[c].x[i];
            }
            y[c * y_stride + r] = total;
        }
    }
}

float round_to_half(float x) {
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
}

// Codes of n activations with one scale; returns largest / 127.
float quantize_block(const float* x, int n, int8_t* q) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 largest = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        largest = _mm256_max_ps(largest, abs_ps(_mm256_loadu_ps(x + i)));
    }
    const float top = max_lanes(largest);
    const __m256 inverse = _mm256_set1_ps(top > 0 ? 127.0f / top : 0.0f);
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

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum) {
    for (int b = 0; b < n / 32; ++b) {
        const float scale = quantize_block(x + b * 32, 32, q + b * 32);
        const __m256i ones = _mm256_set1_epi8(1);
        const int total = sum_lanes(dot_u8_i8(ones, load32(q + b * 32)));
        d[b] = round_to_half(scale);
        sum[b] = round_to_half(scale * static_cast<float>(total));
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
    const auto run = [&](auto kernel) { kernel(w, row_begin, row_end, x, n_cols, y, y_stride); };
    switch (w.type) {
    case WeightType::F32:
        return run(matmul_float<F32>);
    case WeightType::F16:
        return run(matmul_float<F16>);
    case WeightType::BF16:
        return run(matmul_float<BF16>);
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
    case WeightType::Q2_K:
        return run(matmul_format<Q2_K>);
    case WeightType::Q3_K:
        return run(matmul_format<Q3_K>);
    case WeightType::Q5_K:
        return run(matmul_format<Q5_K>);
    case WeightType::Q4_K:
        return run(matmul_format<Q4_K>);
    case WeightType::Q6_K:
        return run(matmul_format<Q6_K>);
    }
}

}  // namespace lk::cpu::LK_SIMD
