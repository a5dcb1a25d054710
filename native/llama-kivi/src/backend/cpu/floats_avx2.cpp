// AVX2 matmul of float weights. A dot product has one order of summing, whatever the number of tokens: a stretch of
// kDepth elements is summed in kLanes lanes, of which lane l takes the elements l, l + kLanes, ...; the lanes are added
// in one order; the stretches are added in theirs.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backend/cpu/formats_avx2.h"
#include "backend/cpu/tiles_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kDepth = 1024;       // elements of a stretch: those of a group of tokens fit the L1 cache
constexpr int kRowsUnpacked = 32;  // rows of a stretch that all tokens share
constexpr int kUnpackMinColumns = 12;

// Tokens whose sums with four rows fit the registers (16 of them; 32 with AVX-512).
#ifdef LK_VNNI
constexpr int kColumns = 6;
#else
constexpr int kColumns = 3;
#endif

// The first n elements at p, then zeros.
template <class Float>
WideFloat load_first(const uint8_t* p, int n) {
    uint8_t padded[kLanes * Float::kBytes] = {};
    std::memcpy(padded, p, n * Float::kBytes);
    return Float::load(padded);
}

// Four rows' lanes in, their sums out, [4], in each of the vector's 128-bit parts: sums of the elements of the part.
WideFloat sum_parts(WideFloat a, WideFloat b, WideFloat c, WideFloat d) {
#ifdef LK_VNNI
    const WideFloat ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const WideFloat cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    return add(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
#else
    const WideFloat ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const WideFloat cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256d low = _mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    const __m256d high = _mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    return add(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
#endif
}

// Adds the 128-bit parts of each of n vectors: sums[vector, 4].
#ifdef LK_VNNI
template <int N>
void add_parts(const WideFloat* v, float* sums) {
    const auto pair = [](WideFloat a, WideFloat b) {
        return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    const auto at = [&](int i) { return v[i < N ? i : N - 1]; };
#pragma GCC unroll 2
    for (int i = 0; i < N; i += 4) {
        const WideFloat four = pair(pair(at(i), at(i + 1)), pair(at(i + 2), at(i + 3)));
        if (i + 4 <= N) {
            _mm512_storeu_ps(sums + i * 4, four);
        } else if (i + 2 <= N) {
            _mm256_storeu_ps(sums + i * 4, _mm512_castps512_ps256(four));
        } else {
            _mm_storeu_ps(sums + i * 4, _mm512_castps512_ps128(four));
        }
    }
}
#else
template <int N>
void add_parts(const WideFloat* v, float* sums) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
        _mm_storeu_ps(sums + i * 4, _mm_add_ps(_mm256_castps256_ps128(v[i]), _mm256_extractf128_ps(v[i], 1)));
    }
}
#endif

// The dot products over n elements of R rows and C tokens: sums[token, row].
template <class Float, int R, int C>
void dot(const uint8_t* const* w, const float* const* x, int n, float (*sums)[R]) {
    WideFloat lanes[C][R];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            lanes[c][r] = set_floats<WideFloat>(0.0f);
        }
    }
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        WideFloat columns[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            columns[c] = load_floats<WideFloat>(x[c] + i);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const WideFloat weights = Float::load(w[r] + i * Float::kBytes);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                lanes[c][r] = multiply_add(weights, columns[c], lanes[c][r]);
            }
        }
    }
    if (i < n) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const WideFloat weights = load_first<Float>(w[r] + i * Float::kBytes, n - i);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                const auto* const column = reinterpret_cast<const uint8_t*>(x[c] + i);
                lanes[c][r] = multiply_add(weights, load_first<F32>(column, n - i), lanes[c][r]);
            }
        }
    }
    WideFloat parts[C * R / 4];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 2
        for (int r = 0; r < R; r += 4) {
            parts[(c * R + r) / 4] = sum_parts(lanes[c][r], lanes[c][r + 1], lanes[c][r + 2], lanes[c][r + 3]);
        }
    }
    add_parts<C * R / 4>(parts, sums[0]);
}

// Rows of a stretch of n elements, `stride` bytes apart.
struct Stretch {
    const uint8_t* w;
    size_t stride;
    int n_rows;
    int64_t at;  // the first element
    int n;
};

// The first stretch sets y, the others add to it. n % kStep == 0.
template <int kStep>
void add_sums(bool first, const float* sums, int n, float* y) {
    for (int i = 0; i < n; i += kStep) {
        for (int j = 0; j < kStep; ++j) {
            y[i + j] = first ? sums[i + j] : y[i + j] + sums[i + j];
        }
    }
}

// Multiplies the rows by C tokens. The first stretch sets y[token * y_stride + row], the others add to it.
template <class Float, int R, int C>
void multiply(const Stretch& s, const QuantizedRow* x, float* y, int64_t y_stride) {
    const float* columns[C];
    for (int c = 0; c < C; ++c) {
        columns[c] = x[c].x + s.at;
    }
    for (int row = 0; row < s.n_rows; row += R) {
        const uint8_t* w[R];
        for (int r = 0; r < R; ++r) {
            w[r] = s.w + std::min(row + r, s.n_rows - 1) * s.stride;
        }
        float sums[C][R];
        dot<Float, R, C>(w, columns, s.n, sums);
        for (int c = 0; c < C; ++c) {
            float* const out = y + c * y_stride + row;
            if (row + R <= s.n_rows) {
                add_sums<R>(s.at == 0, sums[c], R, out);
            } else {
                add_sums<1>(s.at == 0, sums[c], s.n_rows - row, out);
            }
        }
    }
}

template <class Float>
void multiply(const Stretch& s, const QuantizedRow* x, int n_cols, float* y, int64_t y_stride) {
    if (n_cols == 1) {
        return multiply<Float, 8, 1>(s, x, y, y_stride);  // eight independent chains of additions
    }
    for_columns<kColumns>(n_cols, [&]<int C>(std::integral_constant<int, C>, int c) {
        multiply<Float, 4, C>(s, x + c, y + c * y_stride, y_stride);
    });
}

template <class Float>
void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride) {
    const int rows_together = n_cols == 1 ? 8 : kRowsUnpacked;
    alignas(64) float unpacked[kRowsUnpacked][kDepth];
    for (int64_t row = row_begin; row < row_end; row += rows_together) {
        const int n_rows = static_cast<int>(std::min<int64_t>(rows_together, row_end - row));
        for (int64_t at = 0; at < w.n_cols; at += kDepth) {
            const int n = static_cast<int>(std::min<int64_t>(kDepth, w.n_cols - at));
            Stretch s{w.data + row * w.row_bytes + at * Float::kBytes, w.row_bytes, n_rows, at, n};
            if (n_cols < kUnpackMinColumns) {
                multiply<Float>(s, x, n_cols, y + row, y_stride);
                continue;
            }
            for (int r = 0; r < n_rows; ++r) {
                const uint8_t* const from = s.w + r * s.stride;
                int i = 0;
                for (; i + kLanes <= n; i += kLanes) {
                    store_floats(&unpacked[r][i], Float::load(from + i * Float::kBytes));
                }
                if (i < n) {
                    store_floats(&unpacked[r][i], load_first<Float>(from + i * Float::kBytes, n - i));
                }
            }
            s.w = reinterpret_cast<const uint8_t*>(unpacked);
            s.stride = sizeof unpacked[0];
            multiply<F32>(s, x, n_cols, y + row, y_stride);
        }
    }
}

}  // namespace

void matmul_floats(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                   int64_t y_stride) {
    switch (w.type) {
    case WeightType::F16:
        return matmul<F16>(w, row_begin, row_end, x, n_cols, y, y_stride);
    case WeightType::BF16:
        return matmul<BF16>(w, row_begin, row_end, x, n_cols, y, y_stride);
    default:
        return matmul<F32>(w, row_begin, row_end, x, n_cols, y, y_stride);
    }
}

}  // namespace lk::cpu::LK_SIMD
