// AVX2 kernels of the stock cache types: rows of floats, and ggml blocks to halves.
#include <algorithm>
#include <cstring>

#include "backend/cpu/formats_avx2.h"
#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"
#include "kv/codec/scalar_codec.h"
#include "kv/codec/stock_blocks.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Stores 32 byte codes as halves: code * d, or code * d + m.
template <bool kHasMin = false>
void store_halves(__m256i codes, float d, half_t* out, float m = 0) {
    const __m256 scale = _mm256_set1_ps(d);
    const __m128i parts[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
    for (int i = 0; i < 4; ++i) {
        const __m128i bytes = i % 2 ? _mm_srli_si128(parts[i / 2], 8) : parts[i / 2];
        const __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        __m256 x = _mm256_mul_ps(scale, q);
        if constexpr (kHasMin) {
            x = _mm256_add_ps(x, _mm256_set1_ps(m));  // two roundings, as in the reference
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 8 * i), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

// Blocks whose codes a weight format decodes.
template <class Format>
void store_format(const uint8_t* blocks, int n, half_t* out) {
    const auto* b = reinterpret_cast<const typename Format::Block*>(blocks);
    const __m256i offset = _mm256_set1_epi8(Format::kOffset);
    for (int i = 0; i < n / kBlock; ++i) {
        const __m256i codes = _mm256_sub_epi8(Format::codes(b[i]), offset);
        if constexpr (Format::kHasMin) {
            store_halves<true>(codes, _cvtsh_ss(b[i].d), out + i * kBlock, _cvtsh_ss(b[i].m));
        } else {
            store_halves(codes, _cvtsh_ss(b[i].d), out + i * kBlock);
        }
    }
}

void store_q8(const uint8_t* blocks, int n, half_t* out) {
    const auto* b = reinterpret_cast<const BlockQ8_0*>(blocks);
    for (int i = 0; i < n / kBlock; ++i) {
        store_halves(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b[i].qs)), _cvtsh_ss(b[i].d),
                     out + i * kBlock);
    }
}

void store_iq4(const uint8_t* blocks, int n, half_t* out) {
    alignas(16) int8_t levels[16];
    for (int i = 0; i < 16; ++i) {
        levels[i] = static_cast<int8_t>(kv::iq4_level(i));
    }
    const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(levels)));
    const auto* b = reinterpret_cast<const kv::BlockIQ4_NL*>(blocks);
    for (int i = 0; i < n / kBlock; ++i) {
        store_halves(_mm256_shuffle_epi8(table, nibbles(b[i].qs)), _cvtsh_ss(b[i].d), out + i * kBlock);
    }
}

// acc[8 * kVectors] += sum over tokens t of p[t] * v[t][8 * kVectors].
template <int kVectors>
void accumulate_block(const float* v, int n_tokens, int stride, const float* p, float* acc) {
    __m256 a[kVectors];
    for (int i = 0; i < kVectors; ++i) {
        a[i] = _mm256_loadu_ps(acc + 8 * i);
    }
    for (int t = 0; t < n_tokens; ++t) {
        const __m256 pt = _mm256_broadcast_ss(p + t);
        for (int i = 0; i < kVectors; ++i) {
            a[i] = _mm256_fmadd_ps(pt, _mm256_loadu_ps(v + t * stride + 8 * i), a[i]);
        }
    }
    for (int i = 0; i < kVectors; ++i) {
        _mm256_storeu_ps(acc + 8 * i, a[i]);
    }
}

}  // namespace

void score_floats(const float* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    const int d = head_size;
    for (int t = 0; t < n_tokens; t += 4) {
        const int n = std::min(4, n_tokens - t);
        for (int r = 0; r < n_rows; ++r) {
            __m256 a[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
            for (int c = 0; c < d; c += 8) {
                const __m256 qc = _mm256_loadu_ps(q + r * d + c);
                for (int i = 0; i < n; ++i) {
                    a[i] = _mm256_fmadd_ps(qc, _mm256_loadu_ps(k + (t + i) * d + c), a[i]);
                }
            }
            float four[4];
            _mm_storeu_ps(four, sum_four(a[0], a[1], a[2], a[3]));
            std::memcpy(scores + r * ld + t, four, n * sizeof(float));
        }
    }
}

void accumulate_floats(const float* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    const int d = head_size;
    for (int r = 0; r < n_rows; ++r) {
        int c = 0;
        for (; c + 64 <= d; c += 64) {
            accumulate_block<8>(v + c, n_tokens, d, p + r * ld, acc + r * d + c);
        }
        for (; c < d; c += 8) {
            accumulate_block<1>(v + c, n_tokens, d, p + r * ld, acc + r * d + c);
        }
    }
}

void half_blocks(lk_cache_type type, const uint8_t* blocks, int n, half_t* out) {
    switch (type) {
    case LK_CACHE_Q8_0:
        return store_q8(blocks, n, out);
    case LK_CACHE_Q5_1:
        return store_format<Q5_1>(blocks, n, out);
    case LK_CACHE_Q5_0:
        return store_format<Q5_0>(blocks, n, out);
    case LK_CACHE_Q4_1:
        return store_format<Q4_1>(blocks, n, out);
    case LK_CACHE_IQ4_NL:
        return store_iq4(blocks, n, out);
    default:
        return store_format<Q4_0>(blocks, n, out);
    }
}

}  // namespace lk::cpu::LK_SIMD
