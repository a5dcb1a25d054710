// Unpacks the weight formats for matmul_avx2.cpp and tiles_avx2.cpp. Each format is a struct over a block that returns
// the weights as integer codes, 32 at a time, and their scales.
#pragma once

#include <cstring>
#include <type_traits>

#include "backend/cpu/simd_avx2.h"
#include "quant/blocks.h"

namespace lk::cpu::LK_SIMD {

// Eight halves as floats; at(i) is the address of the i-th.
template <class At>
__m256 load_halves(const At& at) {
    const auto half = [&](int i) {
        short bits;
        std::memcpy(&bits, at(i), sizeof bits);
        return bits;
    };
    return _mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
}

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

// Blocks of 32. codes() - kOffset are the integers that the scale multiplies. codes() are unsigned, up to kMaxCode,
// except Q8_0's without VNNI: products of codes above 127 would overflow 16 bits. If kHasMin, min() is added to each
// element.
struct Q8_0 {
    using Block = BlockQ8_0;
    static constexpr bool kHasMin = false;
    static constexpr int kMaxCode = 255;
#ifdef LK_VNNI
    static constexpr int kOffset = 128;
    static __m256i codes(const Block& b) {
        return _mm256_xor_si256(load32(b.qs), _mm256_set1_epi8(-128));
    }
#else
    static constexpr int kOffset = 0;
    static __m256i codes(const Block& b) {
        return load32(b.qs);
    }
#endif
};

struct Q4_0 {
    using Block = BlockQ4_0;
    static constexpr bool kHasMin = false;
    static constexpr int kMaxCode = 15;
    static constexpr int kOffset = 8;
    static __m256i codes(const Block& b) { return nibbles(b.qs); }
};

struct Q4_1 {
    using Block = BlockQ4_1;
    static constexpr bool kHasMin = true;
    static constexpr int kMaxCode = 15;
    static constexpr int kOffset = 0;
    static __m256i codes(const Block& b) { return nibbles(b.qs); }
};

struct Q5_0 {
    using Block = BlockQ5_0;
    static constexpr bool kHasMin = false;
    static constexpr int kMaxCode = 31;
    static constexpr int kOffset = 16;
    static __m256i codes(const Block& b) { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
};

struct Q5_1 {
    using Block = BlockQ5_1;
    static constexpr bool kHasMin = true;
    static constexpr int kMaxCode = 31;
    static constexpr int kOffset = 0;
    static __m256i codes(const Block& b) { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
};

#ifdef LK_VNNI
// 32 bytes shifted right by `first` bits, then the same bytes shifted by `second` bits, and masked.
inline __m512i shifted_twice(const uint8_t* p, int first, int second, char mask) {
    const __m512i by = _mm512_inserti64x4(_mm512_set1_epi16(static_cast<short>(first)),
                                          _mm256_set1_epi16(static_cast<short>(second)), 1);
    const __m512i x = _mm512_srlv_epi16(_mm512_broadcast_i64x4(load32(p)), by);
    return _mm512_and_si512(x, _mm512_set1_epi8(mask));
}

// Picks 16-bit element first + k of a vector's 128-bit parts for all of part k.
inline __m512i pick_parts(__m512i x, int first, int step) {
    const auto part = [&](int k) { return _mm_set1_epi16(static_cast<short>(0x0100 + (first + k / step) * 0x0202)); };
    const __m512i pick = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(part(1), part(0))),
                                            _mm256_set_m128i(part(3), part(2)), 1);
    return _mm512_shuffle_epi8(x, pick);
}
#endif

// Blocks of 256, one scale per kScaled elements. codes(i): 32 unsigned codes, up to kMaxCode. scales(i): the 16-bit
// scale for each pair of products of codes(i). wide_codes and wide_scales: the same for 64 elements. eight_scales(i):
// scales 8 i to 8 i + 7. sum_scale: 16-bit factors for the sums of 16 activations. If kHasMin, they are the minimums,
// times the block's dmin; otherwise they take the offset of the codes off the products.

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
#ifdef LK_VNNI
    __m512i wide_scales(int i) const {
        return pick_parts(_mm512_broadcast_i32x4(eight_scales(i / 2)), i % 2 * 4, 1);
    }
#endif
};

// Low 2 bits of elements 32 i to 32 i + 31 of Q2_K and Q3_K.
inline __m256i two_bits(const uint8_t* qs, int i) {
    const __m256i x = _mm256_srl_epi16(load32(qs + 32 * (i / 4)), _mm_cvtsi32_si128(2 * (i % 4)));
    return _mm256_and_si256(x, _mm256_set1_epi8(3));
}

#ifdef LK_VNNI
inline __m512i wide_two_bits(const uint8_t* qs, int i) {
    return shifted_twice(qs + 32 * (i / 2), i % 2 * 4, i % 2 * 4 + 2, 3);
}
#endif

struct Q2_K : SixteenScales {
    using Block = BlockQ2_K;
    static constexpr bool kHasMin = true;
    static constexpr int kMaxCode = 3;
    const Block& b;
    __m256i sum_scale;  // of each 16 elements
    explicit Q2_K(const Block& block)
        : SixteenScales(_mm256_cvtepu8_epi16(_mm_and_si128(pairs(block), _mm_set1_epi8(15)))),
          b(block),
          sum_scale(_mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(pairs(block), 4), _mm_set1_epi8(15)))) {}
    __m256i codes(int i) const { return two_bits(b.qs, i); }
#ifdef LK_VNNI
    __m512i wide_codes(int i) const {
        return wide_two_bits(b.qs, i);
    }
#endif

private:
    static __m128i pairs(const Block& block) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scales));
    }
};

struct Q3_K : SixteenScales {
    using Block = BlockQ3_K;
    static constexpr bool kHasMin = false;
    static constexpr int kMaxCode = 7;
    const Block& b;
    __m256i sum_scale;
    explicit Q3_K(const Block& block) : Q3_K(block, unpack(block)) {}
    __m256i codes(int i) const {
        const __m256i high = _mm256_srl_epi16(load32(b.hmask), _mm_cvtsi32_si128(i));
        return _mm256_or_si256(two_bits(b.qs, i), _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(1)), 2));
    }
#ifdef LK_VNNI
    __m512i wide_codes(int i) const {
        const __m512i high = shifted_twice(b.hmask, 2 * i, 2 * i + 1, 1);
        return _mm512_or_si512(wide_two_bits(b.qs, i), _mm512_slli_epi16(high, 2));
    }
#endif

private:
    Q3_K(const Block& block, __m256i scales)
        : SixteenScales(scales), b(block), sum_scale(_mm256_mullo_epi16(scales, _mm256_set1_epi16(-4))) {}
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
    // The block begins with d, dmin and the twelve bytes w0, w1, w2 of get_scale_min_k4, four bytes each.
    explicit SixBitPairs(const void* block) {
        const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(block));
        // Scales 0-3 and 4-7, minimums 0-3 and 4-7: their low bits, and the top bits of the second four.
        __m128i low = _mm_shuffle_epi8(x, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
        low = _mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4));
        low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
        __m128i top = _mm_shuffle_epi8(x, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
        top = _mm_and_si128(_mm_srli_epi32(top, 2), _mm_set1_epi8(0x30));
        const __m128i six_bits = _mm_or_si128(low, top);
        scale = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(six_bits));
        sum_scale = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(six_bits, six_bits));
    }
    __m256i scales(int i) const {
        return _mm256_shuffle_epi8(scale, _mm256_set1_epi16(static_cast<short>(0x0100 + i * 0x0202)));
    }
    __m128i eight_scales(int) const { return _mm256_castsi256_si128(scale); }
#ifdef LK_VNNI
    __m512i wide_scales(int i) const {
        return pick_parts(_mm512_broadcast_i32x4(eight_scales(0)), 2 * i, 2);
    }
#endif
};

struct Q4_K : SixBitPairs {
    using Block = BlockQ4_K;
    static constexpr bool kHasMin = true;
    static constexpr int kMaxCode = 15;
    const Block& b;
    explicit Q4_K(const Block& block) : SixBitPairs(&block), b(block) {}
    __m256i codes(int i) const { return nibbles_of_64(b.qs, i); }
#ifdef LK_VNNI
    __m512i wide_codes(int i) const {
        return shifted_twice(b.qs + 32 * i, 0, 4, 15);
    }
#endif
};

struct Q5_K : SixBitPairs {
    using Block = BlockQ5_K;
    static constexpr bool kHasMin = true;
    static constexpr int kMaxCode = 31;
    const Block& b;
    explicit Q5_K(const Block& block) : SixBitPairs(&block), b(block) {}
    __m256i codes(int i) const {
        const __m256i high = _mm256_srl_epi16(load32(b.qh), _mm_cvtsi32_si128(i));
        return _mm256_or_si256(nibbles_of_64(b.qs, i),
                               _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(1)), 4));
    }
#ifdef LK_VNNI
    __m512i wide_codes(int i) const {
        const __m512i high = shifted_twice(b.qh, 2 * i, 2 * i + 1, 1);
        return _mm512_or_si512(shifted_twice(b.qs + 32 * i, 0, 4, 15), _mm512_slli_epi16(high, 4));
    }
#endif
};

struct Q6_K : SixteenScales {
    using Block = BlockQ6_K;
    static constexpr bool kHasMin = false;
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
#ifdef LK_VNNI
    __m512i wide_codes(int i) const {
        const __m512i low = _mm512_loadu_si512(b.ql + 64 * (i / 2));
        const __m512i high = shifted_twice(b.qh + 32 * (i / 2), i % 2 * 4, i % 2 * 4 + 2, 3);
        return _mm512_or_si512(_mm512_and_si512(i % 2 ? _mm512_srli_epi16(low, 4) : low, _mm512_set1_epi8(15)),
                               _mm512_slli_epi16(high, 4));
    }
#endif

private:
    Q6_K(const Block& block, __m256i scales)
        : SixteenScales(scales), b(block), sum_scale(_mm256_mullo_epi16(scales, _mm256_set1_epi16(-32))) {}
    static __m256i unpack(const Block& block) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scales)));
    }
};

// Weights that are floats of some width. load: kLanes of them.
struct F32 {
    static constexpr int kBytes = 4;
    static WideFloat load(const uint8_t* p) { return load_floats<WideFloat>(reinterpret_cast<const float*>(p)); }
};

struct F16 {
    static constexpr int kBytes = 2;
    static WideFloat load(const uint8_t* p) {
#ifdef LK_VNNI
        return _mm512_cvtph_ps(load32(p));
#else
        return load_half8(p);
#endif
    }
};

struct BF16 {
    static constexpr int kBytes = 2;
    static WideFloat load(const uint8_t* p) {
#ifdef LK_VNNI
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(p)), 16));
#else
        const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
#endif
    }
};

template <class Format>
constexpr bool kSuper = sizeof(typename Format::Block) >= sizeof(BlockQ2_K);

// Calls body with the type_identity of the type's format, for weights in blocks.
template <class Body>
auto with_block_format(WeightType type, const Body& body) {
    switch (type) {
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
    default:
        break;
    }
    __builtin_unreachable();  // the loader accepts only these types
}

}  // namespace lk::cpu::LK_SIMD
