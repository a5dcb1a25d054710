// AVX2 attention kernels over packed codes. Codes stay in registers from the page to the sums. Integer sums are exact,
// so results are those of unpack_codes and dot_codes, bit for bit.
//
// A piece is a vector of codes with one lane per token of keys or channel of values, four codes a lane, as dot products
// of bytes need them.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/packed_codes.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kMostRows = 8;
constexpr int kTileTokens = 32;

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

// Four weights of a row in every lane.
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

#ifdef LK_VNNI

constexpr int kScoreRows = 8;
constexpr int kScorePieces = 2;  // of 16 tokens

// The pieces of a quad of keys.
template <int kBits>
void unpack_quad(const uint8_t* quad, __m512i* pieces) {
    if constexpr (kBits == 2) {
        const __m512i mask = _mm512_set1_epi8(3);
        const __m512i x = _mm512_broadcast_i64x4(load32(quad));
        const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
        const __m512i down_more = _mm512_add_epi16(down, _mm512_set1_epi16(4));
        pieces[0] = _mm512_and_si512(_mm512_srlv_epi16(x, down), mask);
        pieces[1] = _mm512_and_si512(_mm512_srlv_epi16(x, down_more), mask);
    } else {
        const __m512i mask = _mm512_set1_epi8(15);
        const __m512i x = _mm512_loadu_si512(quad);
        pieces[0] = _mm512_and_si512(x, mask);
        pieces[1] = _mm512_and_si512(_mm512_srli_epi16(x, 4), mask);
    }
}

// Scores of a tile of 32 keys and R rows.
template <int kBits, int R>
void score_rows(const uint8_t* quads, int n_quads, const int8_t* w, int w_stride, const float* step, const float* bias,
                float* scores, int ld) {
    constexpr int kQuadBytes = kTileTokens * 4 * kBits / 8;
    constexpr int kChains = R <= 3 ? 2 : 1;  // few rows leave the multipliers idle between dependent additions
    __m512i sums[kChains][R][kScorePieces];
    for (auto& chain : sums) {
        for (auto& row : chain) {
            row[0] = row[1] = wide_zero();
        }
    }
    const auto add_quad = [&](int quad, auto& chain) {
        __m512i pieces[kScorePieces];
        unpack_quad<kBits>(quads + quad * kQuadBytes, pieces);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m512i four = load_four<__m512i>(w + r * w_stride + 4 * quad);
            chain[r][0] = add_dot_u8_i8(chain[r][0], pieces[0], four);
            chain[r][1] = add_dot_u8_i8(chain[r][1], pieces[1], four);
        }
    };
    int quad = 0;
    for (; quad + kChains <= n_quads; quad += kChains) {
#pragma GCC unroll 2
        for (int chain = 0; chain < kChains; ++chain) {
            add_quad(quad + chain, sums[chain]);
        }
    }
    if (quad < n_quads) {
        add_quad(quad, sums[0]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int i = 0; i < kScorePieces; ++i) {
            __m512i sum = sums[0][r][i];
            if constexpr (kChains == 2) {
                sum = _mm512_add_epi32(sum, sums[1][r][i]);
            }
            store_floats(scores + r * ld + 16 * i,
                         multiply_add(_mm512_set1_ps(step[r]), to_floats(sum), _mm512_set1_ps(bias[r])));
        }
    }
}

#else

constexpr int kScoreRows = 4;
constexpr int kScorePieces = 2;  // of 8 tokens, of a quad's four: those of all four and R rows exceed the registers

// Pieces 2 * kPair and 2 * kPair + 1 of a quad of keys.
template <int kBits, int kPair>
void unpack_quad(const uint8_t* quad, __m256i* pieces) {
    if constexpr (kBits == 2) {
        const __m256i mask = _mm256_set1_epi8(3);
        const __m256i x = load32(quad);
        pieces[0] = _mm256_and_si256(_mm256_srli_epi16(x, 4 * kPair), mask);
        pieces[1] = _mm256_and_si256(_mm256_srli_epi16(x, 4 * kPair + 2), mask);
    } else {
        const __m256i mask = _mm256_set1_epi8(15);
        pieces[0] = _mm256_and_si256(_mm256_srli_epi16(load32(quad), 4 * kPair), mask);
        pieces[1] = _mm256_and_si256(_mm256_srli_epi16(load32(quad + 32), 4 * kPair), mask);
    }
}

// Scores of half a tile of 32 keys and R rows. Products of bytes are added in 16 bits: a lane of a piece adds at most
// 2 * 127 * (2^bits - 1) per quad, and chains end before that overflows.
template <int kBits, int kPair, int R>
void score_half(const uint8_t* quads, int n_quads, const int8_t* w, int w_stride, const float* step, const float* bias,
                float* scores, int ld) {
    constexpr int kQuadBytes = kTileTokens * 4 * kBits / 8;
    constexpr int kChain = 32767 / (2 * 127 * ((1 << kBits) - 1));
    __m256i sums[R][kScorePieces];
    for (auto& row : sums) {
        row[0] = row[1] = _mm256_setzero_si256();
    }
    for (int begin = 0; begin < n_quads; begin += kChain) {
        __m256i chain[R][kScorePieces];
        for (auto& row : chain) {
            row[0] = row[1] = _mm256_setzero_si256();
        }
        const int end = std::min(n_quads, begin + kChain);
        for (int quad = begin; quad < end; ++quad) {
            __m256i pieces[kScorePieces];
            unpack_quad<kBits, kPair>(quads + quad * kQuadBytes, pieces);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const __m256i four = load_four<__m256i>(w + r * w_stride + 4 * quad);
                chain[r][0] = _mm256_add_epi16(chain[r][0], _mm256_maddubs_epi16(pieces[0], four));
                chain[r][1] = _mm256_add_epi16(chain[r][1], _mm256_maddubs_epi16(pieces[1], four));
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
            for (int i = 0; i < kScorePieces; ++i) {
                sums[r][i] = _mm256_add_epi32(sums[r][i], _mm256_madd_epi16(chain[r][i], _mm256_set1_epi16(1)));
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int i = 0; i < kScorePieces; ++i) {
            store_floats(scores + r * ld + 8 * (2 * kPair + i),
                         multiply_add(_mm256_set1_ps(step[r]), to_floats(sums[r][i]), _mm256_set1_ps(bias[r])));
        }
    }
}

template <int kBits, int R>
void score_rows(const uint8_t* quads, int n_quads, const int8_t* w, int w_stride, const float* step, const float* bias,
                float* scores, int ld) {
    score_half<kBits, 0, R>(quads, n_quads, w, w_stride, step, bias, scores, ld);
    score_half<kBits, 1, R>(quads, n_quads, w, w_stride, step, bias, scores, ld);
}

#endif

// Adds products of values. Without VNNI in 16 bits, which suffice for the 8 quads of tokens of two units.
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

// Loads one block of values, or two for a wide vector. Shifts of x[0] give the quads of tokens 0 to 3 in order (2
// bits), or those of x[0] the quads 0 and 2 and those of x[1] the quads 1 and 3 (4 bits).
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

// Adds the values of blocks of channels from block `first` on, a vector of them, for R rows.
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

void score_packed(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                  const float* step, const float* bias, int n_rows, float* scores, int ld) {
    if (tile_tokens != kTileTokens) {
        unpack_and_score<unpack_codes, dot_codes>(quads, n_quads, tile_tokens, bits, w, w_stride, step, bias, n_rows,
                                                  scores, ld);
        return;
    }
    for_rows<kScoreRows>(n_rows, [&]<int R>(std::integral_constant<int, R>, int r) {
        const auto score = bits == 2 ? score_rows<2, R> : score_rows<4, R>;
        score(quads, n_quads, w + r * w_stride, w_stride, step + r, bias + r, scores + r * ld, ld);
    });
}

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
