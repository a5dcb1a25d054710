// AVX2 attention kernels: byte codes times int8 weights, and half rows times float rows.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Scores of four tokens for one query row; the four keys share each query load.
void score_four(const half_t* k, int head_size, const float* q, float* scores) {
    __m256 a[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int c = 0; c < head_size; c += 8) {
        const __m256 qc = _mm256_loadu_ps(q + c);
        for (int t = 0; t < 4; ++t) {
            a[t] = _mm256_fmadd_ps(qc, load_half8(k + t * head_size + c), a[t]);
        }
    }
    _mm_storeu_ps(scores, sum_four(a[0], a[1], a[2], a[3]));
}

// Scores of four tokens, already converted to floats, for two query rows.
void score_four_by_two(const float* k, int head_size, const float* q, float* scores, int ld) {
    __m256 a[8];
    for (__m256& x : a) {
        x = _mm256_setzero_ps();
    }
    for (int c = 0; c < head_size; c += 8) {
        const __m256 q0 = _mm256_loadu_ps(q + c);
        const __m256 q1 = _mm256_loadu_ps(q + head_size + c);
        for (int t = 0; t < 4; ++t) {
            const __m256 kt = _mm256_loadu_ps(k + t * head_size + c);
            a[t] = _mm256_fmadd_ps(q0, kt, a[t]);
            a[4 + t] = _mm256_fmadd_ps(q1, kt, a[4 + t]);
        }
    }
    _mm_storeu_ps(scores, sum_four(a[0], a[1], a[2], a[3]));
    _mm_storeu_ps(scores + ld, sum_four(a[4], a[5], a[6], a[7]));
}

void to_float(const half_t* x, int n, float* out) {
    for (int i = 0; i < n; i += 8) {
        _mm256_storeu_ps(out + i, load_half8(x + i));
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

// Register blocking: vectors of lanes, and rows that share one load of codes.
constexpr int kDotVectors = 32 / kLanes;
constexpr int kDotRows = 8 / kDotVectors;

template <class Int>
Int load_ints(const void* p) {
    if constexpr (sizeof(Int) == 32) {
        return _mm256_loadu_si256(static_cast<const __m256i*>(p));
    } else {
        return wide_load(p);
    }
}

template <class Int>
Int set_ints(int x) {
    if constexpr (sizeof(Int) == 32) {
        return _mm256_set1_epi32(x);
    } else {
        return wide_set(x);
    }
}

// A block of R rows of weights times V vectors of lanes.
template <class Int, int V, int R>
void dot_block(const uint8_t* codes, int quad_stride, int n_quads, const int8_t* w, int w_stride, const float* step,
               const float* bias, float* out, int out_stride) {
    constexpr int kVectorLanes = sizeof(Int) / 4;
    Int sums[R][V];
    for (auto& row : sums) {
        for (Int& sum : row) {
            sum = set_ints<Int>(0);
        }
    }
    for (int quad = 0; quad < n_quads; ++quad) {
        const uint8_t* from = codes + static_cast<ptrdiff_t>(quad) * quad_stride;
        Int u[V];
        for (int v = 0; v < V; ++v) {
            u[v] = load_ints<Int>(from + sizeof(Int) * v);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            int four;
            std::memcpy(&four, w + r * w_stride + quad * 4, 4);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                sums[r][v] = add_dot_u8_i8(sums[r][v], u[v], set_ints<Int>(four));
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) {
            float* to = out + r * out_stride + v * kVectorLanes;
            const auto sum = to_floats(sums[r][v]);
            using Float = std::remove_const_t<decltype(sum)>;
            const Float line = multiply_add(set_floats<Float>(step[r]), sum, set_floats<Float>(bias[r]));
            store_floats(to, add(load_floats<Float>(to), line));
        }
    }
}

template <class Int, int V>
void dot_rows(const uint8_t* codes, int quad_stride, int n_quads, const int8_t* w, int w_stride, const float* step,
              const float* bias, int n_rows, float* out, int out_stride) {
    int r = 0;
    for (; r + kDotRows <= n_rows; r += kDotRows) {
        dot_block<Int, V, kDotRows>(codes, quad_stride, n_quads, w + r * w_stride, w_stride, step + r, bias + r,
                                    out + r * out_stride, out_stride);
    }
    for (; r < n_rows; ++r) {
        dot_block<Int, V, 1>(codes, quad_stride, n_quads, w + r * w_stride, w_stride, step + r, bias + r,
                             out + r * out_stride, out_stride);
    }
}

}  // namespace

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    const int d = head_size;
    alignas(32) float wide[4 * kv::kMaxHeadSize];
    int t = 0;
    for (; t + 4 <= n_tokens; t += 4) {
        int r = 0;
        if (n_rows >= 2) {
            to_float(k + t * d, 4 * d, wide);
            for (; r + 2 <= n_rows; r += 2) {
                score_four_by_two(wide, d, q + r * d, scores + r * ld + t, ld);
            }
        }
        for (; r < n_rows; ++r) {
            score_four(k + t * d, d, q + r * d, scores + r * ld + t);
        }
    }
    for (; t < n_tokens; ++t) {
        for (int r = 0; r < n_rows; ++r) {
            __m256 a = _mm256_setzero_ps();
            for (int c = 0; c < d; c += 8) {
                a = _mm256_fmadd_ps(_mm256_loadu_ps(q + r * d + c), load_half8(k + t * d + c), a);
            }
            scores[r * ld + t] = _mm_cvtss_f32(sum_four(a, a, a, a));  // in the order of score_four
        }
    }
}

void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    constexpr int kTokens = 16;
    const int d = head_size;
    alignas(32) float wide[kTokens * kv::kMaxHeadSize];
    for (int t = 0; t < n_tokens; t += kTokens) {
        const int n = std::min(kTokens, n_tokens - t);
        to_float(v + t * d, n * d, wide);
        for (int r = 0; r < n_rows; ++r) {
            int c = 0;
            for (; c + 64 <= d; c += 64) {
                accumulate_block<8>(wide + c, n, d, p + r * ld + t, acc + r * d + c);
            }
            for (; c < d; c += 8) {
                accumulate_block<1>(wide + c, n, d, p + r * ld + t, acc + r * d + c);
            }
        }
    }
}

void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride) {
    const int per_byte = 8 / bits;
    const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << bits) - 1));
    for (int u = 0; u < n_units; ++u) {
        const uint8_t* from = packed + static_cast<ptrdiff_t>(u) * unit_bytes;
        uint8_t* to = out + static_cast<ptrdiff_t>(u) * unit_stride;
        if (unit_bytes == 16) {  // 2 bits, tiles of 16 tokens: 64 codes in two pieces
            const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
            const __m256i low = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 2), x), mask);
            const __m256i high = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 6), _mm_srli_epi16(x, 4)), mask);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), low);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + piece_stride), high);
            continue;
        }
        if (bits == 3) {  // 32 bytes of two bits, then 16 bytes of high bits: 128 codes in four pieces
            const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
            const __m128i bits_of_16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 32));
            // Bit 2 k + 2 of a byte is the high bit of its code in piece k.
            const __m256i high = _mm256_set_m128i(_mm_slli_epi16(bits_of_16, 1), _mm_slli_epi16(bits_of_16, 2));
            const __m256i top = _mm256_set_m128i(_mm_srli_epi16(bits_of_16, 5), _mm_srli_epi16(bits_of_16, 4));
            const __m256i two = _mm256_set1_epi8(3);
            const __m256i third = _mm256_set1_epi8(4);
            for (int k = 0; k < 4; ++k) {
                const __m256i bit = k < 3 ? _mm256_srl_epi16(high, _mm_cvtsi32_si128(2 * k)) : top;
                const __m256i pair = _mm256_srl_epi16(low, _mm_cvtsi32_si128(2 * k));
                const __m256i code = _mm256_or_si256(_mm256_and_si256(pair, two), _mm256_and_si256(bit, third));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k * piece_stride), code);
            }
            continue;
        }
        const int vectors = unit_bytes / 32;
        for (int i = 0; i < vectors; ++i) {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32 * i));
            for (int k = 0; k < per_byte; ++k) {
                const __m256i code = _mm256_and_si256(_mm256_srl_epi16(x, _mm_cvtsi32_si128(bits * k)), mask);
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (k * vectors + i) * piece_stride), code);
            }
        }
    }
}

void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride) {
    int lane = 0;
    for (; lane + 32 <= lanes; lane += 32) {
        dot_rows<WideInt, kDotVectors>(codes + 4 * lane, quad_stride, n_quads, w, w_stride, step, bias, n_rows,
                                       out + lane, out_stride);
    }
    for (; lane < lanes; lane += 8) {
        dot_rows<__m256i, 1>(codes + 4 * lane, quad_stride, n_quads, w, w_stride, step, bias, n_rows, out + lane,
                             out_stride);
    }
}

void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s) {
    int i = 0;
#ifdef LK_VNNI
    for (; i + 16 <= n; i += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + i));
        const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 6);
        store_floats(s + i, multiply(_mm512_cvtph_ps(halves), _mm512_set1_ps(factor)));
    }
#endif
    const __m256 f = _mm256_set1_ps(factor);
    for (; i < n; i += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + i));
        const __m128i halves = _mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 6);
        _mm256_storeu_ps(s + i, _mm256_mul_ps(_mm256_cvtph_ps(halves), f));
    }
}

float square_sum(const float* a, const float* b, int n) {
    WideFloat sum = set_floats<WideFloat>(0.0f);
    for (int i = 0; i < n; i += kLanes) {
        const WideFloat x = multiply(load_floats<WideFloat>(a + i), load_floats<WideFloat>(b + i));
        sum = multiply_add(x, x, sum);
    }
    return sum_lanes(sum);
}

}  // namespace lk::cpu::LK_SIMD
