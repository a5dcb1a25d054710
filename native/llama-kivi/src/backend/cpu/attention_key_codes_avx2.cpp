// AVX2 scores of packed keys; see attention_codes_avx2.h.
#include <algorithm>
#include <type_traits>

#include "backend/cpu/attention_codes_avx2.h"
#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/packed_codes.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kTileTokens = 32;

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

}  // namespace lk::cpu::LK_SIMD
