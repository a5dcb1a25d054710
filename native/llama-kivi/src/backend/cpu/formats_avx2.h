// Unpacks the weight formats for matmul_avx2.cpp and tiles_avx2.cpp. Each format is a struct over a block that returns
// the weights as integer codes, 32 at a time, and their scales.
#pragma once

#include <cstring>
#include <type_traits>

#include "backend/cpu/simd_avx2.h"
#include "quant/blocks.h"

namespace lk::cpu::LK_SIMD {

// Unpacks 16 bytes of nibbles to 32 codes, low nibbles first.
inline __m256i nibbles(const uint8_t* qs) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
}

// Unpacks 32 bits to 32 bytes: 16 for a set bit, else 0.
inline __m256i fifth_bits(const uint8_t* qh) {
    int bits;
    std::memcpy(&bits, qh, 4);
    const __m256i spread =
        _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const __m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(x, each), each), _mm256_set1_epi8(16));
}

// Blocks of 32. If kOffset is 0, codes() are unsigned, up to kMaxCode, and the block has a minimum. Otherwise codes()
// are signed, and codes() + kOffset is unsigned, up to kMaxCode.
struct Q8_0 {
    using Block = BlockQ8_0;
    static constexpr int kOffset = 128;
    static constexpr int kMaxCode = 255;
    const Block& b;
    explicit Q8_0(const Block& block) : b(block) {}
    __m256i codes() const { return load32(b.qs); }
    float scale() const { return _cvtsh_ss(b.d); }
};

struct Q4_0 {
    using Block = BlockQ4_0;
    static constexpr int kOffset = 8;
    static constexpr int kMaxCode = 15;
    const Block& b;
    explicit Q4_0(const Block& block) : b(block) {}
    __m256i codes() const { return _mm256_sub_epi8(nibbles(b.qs), _mm256_set1_epi8(8)); }
    float scale() const { return _cvtsh_ss(b.d); }
};

struct Q4_1 {
    using Block = BlockQ4_1;
    static constexpr int kOffset = 0;
    static constexpr int kMaxCode = 15;
    const Block& b;
    explicit Q4_1(const Block& block) : b(block) {}
    __m256i codes() const { return nibbles(b.qs); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return _cvtsh_ss(b.m); }
};

struct Q5_0 {
    using Block = BlockQ5_0;
    static constexpr int kOffset = 16;
    static constexpr int kMaxCode = 31;
    const Block& b;
    explicit Q5_0(const Block& block) : b(block) {}
    __m256i codes() const {
        return _mm256_sub_epi8(_mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)), _mm256_set1_epi8(16));
    }
    float scale() const { return _cvtsh_ss(b.d); }
};

struct Q5_1 {
    using Block = BlockQ5_1;
    static constexpr int kOffset = 0;
    static constexpr int kMaxCode = 31;
    const Block& b;
    explicit Q5_1(const Block& block) : b(block) {}
    __m256i codes() const { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
    float scale() const { return _cvtsh_ss(b.d); }
    float min() const { return _cvtsh_ss(b.m); }
};

// Blocks of 256, one scale per kScaled elements. codes(i): 32 unsigned codes, up to kMaxCode. scales(i): the 16-bit
// scale for each pair of products of codes(i). eight_scales(i): scales 8 i to 8 i + 7. sum_scale: 16-bit factors for
// the sums of 16 activations; sum_factor: the float that multiplies their sum.

// Sixteen 16-bit scales: 0-7 in both halves of one register, 8-15 in both halves of another.
struct SixteenScales {
    static constexpr int kScaled = 16;
    __m256i low;
    __m256i high;
    explicit SixteenScales(__m256i scales)
        : low(_mm256_permute2x128_si256(scales, scales, 0x00)), high(_mm256_permute2x128_si256(scales, scales, 0x11)) {}
    // Pairs 0-7 of codes(i) belong to the first 16 elements, pairs 8-15 to the last 16.
    __m256i scales(int i) const {
        const int at = i % 4 * 2 * 0x0202 + 0x0100;  // byte indices of the scale in its half
        const __m256i pick =
            _mm256_set_m128i(_mm_set1_epi16(static_cast<short>(at + 0x0202)), _mm_set1_epi16(static_cast<short>(at)));
        return _mm256_shuffle_epi8(i < 4 ? low : high, pick);
    }
    __m128i eight_scales(int i) const { return _mm256_castsi256_si128(i == 0 ? low : high); }
};

// Low 2 bits of elements 32 i to 32 i + 31 of Q2_K and Q3_K.
inline __m256i two_bits(const uint8_t* qs, int i) {
    const __m256i x = _mm256_srl_epi16(load32(qs + 32 * (i / 4)), _mm_cvtsi32_si128(2 * (i % 4)));
    return _mm256_and_si256(x, _mm256_set1_epi8(3));
}

struct Q2_K : SixteenScales {
    using Block = BlockQ2_K;
    static constexpr int kMaxCode = 3;
    const Block& b;
    __m256i sum_scale;  // of each 16 elements
    explicit Q2_K(const Block& block)
        : SixteenScales(_mm256_cvtepu8_epi16(_mm_and_si128(pairs(block), _mm_set1_epi8(15)))),
          b(block),
          sum_scale(_mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(pairs(block), 4), _mm_set1_epi8(15)))) {}
    __m256i codes(int i) const { return two_bits(b.qs, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -_cvtsh_ss(b.dmin); }

private:
    static __m128i pairs(const Block& block) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scales)); }
};

struct Q3_K : SixteenScales {
    using Block = BlockQ3_K;
    static constexpr int kMaxCode = 7;
    const Block& b;
    __m256i sum_scale;
    explicit Q3_K(const Block& block) : Q3_K(block, unpack(block)) {}
    __m256i codes(int i) const {
        const __m256i high = _mm256_srl_epi16(load32(b.hmask), _mm_cvtsi32_si128(i));
        return _mm256_or_si256(two_bits(b.qs, i), _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(1)), 2));
    }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -4.0f * _cvtsh_ss(b.d); }  // weight = code - 4

private:
    Q3_K(const Block& block, __m256i scales) : SixteenScales(scales), b(block), sum_scale(scales) {}
    static __m256i unpack(const Block& block) {
        alignas(32) int16_t scale[16];
        for (int j = 0; j < 16; ++j) {
            scale[j] = static_cast<int16_t>(get_scale_q3_k(j, block.scales));
        }
        return load32(scale);
    }
};

// Low 4 bits of elements 32 i to 32 i + 31 of Q4_K and Q5_K: 32 bytes hold 64 elements, low nibbles first.
inline __m256i nibbles_of_64(const uint8_t* qs, int i) {
    const __m256i x = load32(qs + i / 2 * 32);
    return _mm256_and_si256(i % 2 ? _mm256_srli_epi16(x, 4) : x, _mm256_set1_epi8(15));
}

// The eight 6-bit scales and minimums of Q4_K and Q5_K.
struct SixBitPairs {
    static constexpr int kScaled = 32;
    __m256i scale;      // eight scales, in both halves
    __m256i sum_scale;  // each minimum twice, because it covers two sums of 16
    explicit SixBitPairs(const uint8_t* scales) {
        // Unpacks four scales or minimums at a time; the layout is that of get_scale_min_k4.
        uint32_t w[3];
        std::memcpy(w, scales, 12);
        const uint32_t s0 = w[0] & 0x3f3f3f3fu;
        const uint32_t m0 = w[1] & 0x3f3f3f3fu;
        const uint32_t s1 = (w[2] & 0x0f0f0f0fu) | (((w[0] >> 6) & 0x03030303u) << 4);
        const uint32_t m1 = ((w[2] >> 4) & 0x0f0f0f0fu) | (((w[1] >> 6) & 0x03030303u) << 4);
        const auto bytes = [](uint32_t lo, uint32_t hi) {
            return _mm_set_epi32(0, 0, static_cast<int>(hi), static_cast<int>(lo));
        };
        scale = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(bytes(s0, s1)));
        const __m128i mins = bytes(m0, m1);
        sum_scale = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins));
    }
    __m256i scales(int i) const {
        return _mm256_shuffle_epi8(scale, _mm256_set1_epi16(static_cast<short>(0x0100 + i * 0x0202)));
    }
    __m128i eight_scales(int) const { return _mm256_castsi256_si128(scale); }
};

struct Q4_K : SixBitPairs {
    using Block = BlockQ4_K;
    static constexpr int kMaxCode = 15;
    const Block& b;
    explicit Q4_K(const Block& block) : SixBitPairs(block.scales), b(block) {}
    __m256i codes(int i) const { return nibbles_of_64(b.qs, i); }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -_cvtsh_ss(b.dmin); }
};

struct Q5_K : SixBitPairs {
    using Block = BlockQ5_K;
    static constexpr int kMaxCode = 31;
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

struct Q6_K : SixteenScales {
    using Block = BlockQ6_K;
    static constexpr int kMaxCode = 63;
    const Block& b;
    __m256i sum_scale;  // of each 16 elements
    explicit Q6_K(const Block& block) : Q6_K(block, unpack(block)) {}
    __m256i codes(int i) const {
        const int half = i / 4;  // 128 elements
        const int part = i % 4;  // 32 of them
        const __m256i low = load32(b.ql + 64 * half + 32 * (part % 2));
        const __m256i high = _mm256_srl_epi16(load32(b.qh + 32 * half), _mm_cvtsi32_si128(2 * part));
        return _mm256_or_si256(_mm256_and_si256(part / 2 ? _mm256_srli_epi16(low, 4) : low, _mm256_set1_epi8(15)),
                               _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
    }
    float factor() const { return _cvtsh_ss(b.d); }
    float sum_factor() const { return -32.0f * _cvtsh_ss(b.d); }  // the codes are 32 above their meaning

private:
    Q6_K(const Block& block, __m256i scales) : SixteenScales(scales), b(block), sum_scale(scales) {}
    static __m256i unpack(const Block& block) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scales)));
    }
};

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

template <class Format>
constexpr bool kSuper = sizeof(typename Format::Block) >= sizeof(BlockQ2_K);

template <class Format>
constexpr bool kIsFloat = requires {
    Format::kBytes;
};

// Calls body with the type_identity of the type's format.
template <class Body>
auto with_format(WeightType type, const Body& body) {
    switch (type) {
    case WeightType::F32:
        return body(std::type_identity<F32>());
    case WeightType::F16:
        return body(std::type_identity<F16>());
    case WeightType::BF16:
        return body(std::type_identity<BF16>());
    case WeightType::Q4_0:
        return body(std::type_identity<Q4_0>());
    case WeightType::Q4_1:
        return body(std::type_identity<Q4_1>());
    case WeightType::Q5_0:
        return body(std::type_identity<Q5_0>());
    case WeightType::Q5_1:
        return body(std::type_identity<Q5_1>());
    case WeightType::Q8_0:
        return body(std::type_identity<Q8_0>());
    case WeightType::Q2_K:
        return body(std::type_identity<Q2_K>());
    case WeightType::Q3_K:
        return body(std::type_identity<Q3_K>());
    case WeightType::Q4_K:
        return body(std::type_identity<Q4_K>());
    case WeightType::Q5_K:
        return body(std::type_identity<Q5_K>());
    case WeightType::Q6_K:
        return body(std::type_identity<Q6_K>());
    }
    __builtin_unreachable();  // the loader accepts only these types
}

}  // namespace lk::cpu::LK_SIMD
