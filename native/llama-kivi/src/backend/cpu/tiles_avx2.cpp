#include "backend/cpu/tiles_avx2.h"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "backend/cpu/formats_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kDepth = 2048;  // elements per row in a tile, which fits the L1 or L2 cache

// Tokens whose sums fit the registers (16 of them; 32 with AVX-512).
#ifdef LK_VNNI
constexpr int kColumns = 8;
#else
constexpr int kColumns = 4;
#endif

// kLanes rows as codes with their scales. The format determines which arrays are filled.
struct Tile {
    alignas(64) uint8_t codes[kDepth * kLanes];               // [element / 4, lane, 4]
    alignas(64) float scale[kDepth / 32 * kLanes];            // [block, lane]
    alignas(64) float min[kDepth / 32 * kLanes];              // [block, lane]; of blocks of 256, minus dmin
    alignas(64) int32_t integer_scale[kDepth / 16 * kLanes];  // [part, lane] of blocks of 256, see integer_scales
    alignas(64) int32_t sum_scale[kDepth / 32 * kLanes];      // [pair of 16 elements, lane]: two 16-bit factors
};

// Returns {value(0), ..., value(7)}.
template <class Value>
auto of_eight(const Value& value) {
    return [&]<int... I>(std::integer_sequence<int, I...>) {
        return std::array{value(I)...};
    }
    (std::make_integer_sequence<int, 8>());
}

// Unpacks n elements of kLanes rows from `row` on; blocks of 32.
template <class Format>
void unpack_plain(const uint8_t* row, int64_t row_bytes, int n, Tile& tile) {
    using Block = typename Format::Block;
    for (int half = 0; half < kLanes; half += 8) {
        const auto rows = of_eight([&](int i) { return row + (half + i) * row_bytes; });
        for (int b = 0; b < n / kBlock; ++b) {
            const auto codes =
                of_eight([&](int i) { return Format::codes(reinterpret_cast<const Block*>(rows[i])[b]); });
            store_transposed(codes.data(), tile.codes + (b * 8 * kLanes + half) * 4, kLanes * 4);
            const size_t at = b * sizeof(Block);
            store_floats(tile.scale + b * kLanes + half,
                         load_halves([&](int r) { return rows[r] + at + offsetof(Block, d); }));
            if constexpr (Format::kHasMin) {
                store_floats(tile.min + b * kLanes + half,
                             load_halves([&](int r) { return rows[r] + at + offsetof(Block, m); }));
            }
        }
    }
}

// The number of quads, at most n_quads, whose products sum up in 16 bits without overflow.
constexpr int short_quads(int n_quads, int max_code) {
#ifdef LK_VNNI
    constexpr int kProducts = 4;
#else
    constexpr int kProducts = 2;  // a quad fills two 16-bit lanes
#endif
    return std::clamp(32767 / (kProducts * 127 * max_code), 1, n_quads);
}

// Whether sums of products are multiplied by their integer scale in 16 bits. With VNNI, sums are born with 32 bits.
template <class Format>
constexpr bool short_sums() {
#ifdef LK_VNNI
    return 2 * short_quads(Format::kScaled / 4, Format::kMaxCode) >= Format::kScaled / 4;
#else
    return true;
#endif
}

// Integer scales as add_part needs them: with 16-bit sums in the low half or, without VNNI, in both.
template <class Format>
__m256i integer_scales(__m128i eight) {
    const __m256i scales = _mm256_cvtepi16_epi32(eight);
#ifdef LK_VNNI
    return short_sums<Format>() ? _mm256_blend_epi16(scales, _mm256_setzero_si256(), 0xaa) : scales;
#else
    return _mm256_blend_epi16(scales, _mm256_slli_epi32(scales, 16), 0xaa);
#endif
}

// The same for blocks of 256.
template <class Format>
void unpack_super(const uint8_t* row, int64_t row_bytes, int n, Tile& tile) {
    using Block = typename Format::Block;
    constexpr int kScales = kSuperBlock / Format::kScaled;
    for (int half = 0; half < kLanes; half += 8) {
        const auto rows = of_eight([&](int i) { return row + (half + i) * row_bytes; });
        for (int b = 0; b < n / kSuperBlock; ++b) {
            const auto formats = of_eight([&](int i) { return Format(reinterpret_cast<const Block*>(rows[i])[b]); });
            __m256i v[8];
            for (int part = 0; part < 8; ++part) {
                for (int i = 0; i < 8; ++i) {
                    v[i] = formats[i].codes(part);
                }
                store_transposed(v, tile.codes + ((b * 8 + part) * 8 * kLanes + half) * 4, kLanes * 4);
            }
            for (int part = 0; part < kScales / 8; ++part) {
                for (int i = 0; i < 8; ++i) {
                    v[i] = integer_scales<Format>(formats[i].eight_scales(part));
                }
                store_transposed(v, tile.integer_scale + (b * kScales + part * 8) * kLanes + half, kLanes * 4);
            }
            for (int i = 0; i < 8; ++i) {
                v[i] = formats[i].sum_scale;
            }
            store_transposed(v, tile.sum_scale + b * 8 * kLanes + half, kLanes * 4);
            const size_t at = b * sizeof(Block);
            store_floats(tile.scale + b * kLanes + half,
                         load_halves([&](int r) { return rows[r] + at + offsetof(Block, d); }));
            if constexpr (Format::kHasMin) {
                const __m256 min = load_halves([&](int r) { return rows[r] + at + offsetof(Block, dmin); });
                store_floats(tile.min + b * kLanes + half, _mm256_xor_ps(min, _mm256_set1_ps(-0.0f)));
            }
        }
    }
}

template <int C>
void set_zero(WideInt* x) {
    std::fill_n(x, C, wide_zero());
}

WideInt broadcast_four(const void* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return wide_set(four);
}

#ifndef LK_VNNI
// sum[c] += dot of kQuads quads of codes, at most kMaxCode, with x[c], times a scale per lane, which is given as two
// equal 16-bit numbers. kStep quads are summed in 16 bits.
template <int kQuads, int kStep, int kMaxCode, int C>
void add_scaled(const uint8_t* codes, const int8_t* const* x, int64_t at, WideInt scale, WideInt* sum) {
    for (int first = 0; first < kQuads; first += kStep) {
        WideInt pairs[C];
#pragma GCC unroll 8
        for (int q = 0; q < kStep; ++q) {
            const WideInt u = wide_load(codes + (first + q) * kLanes * 4);
            for (int c = 0; c < C; ++c) {
                const WideInt four = broadcast_four(x[c] + at + (first + q) * 4);
                const WideInt product = kMaxCode > 127
                                            ? _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(four, u))
                                            : _mm256_maddubs_epi16(u, four);
                pairs[c] = q == 0 ? product : _mm256_add_epi16(pairs[c], product);
            }
        }
        for (int c = 0; c < C; ++c) {
            sum[c] = add_dot_i16(sum[c], pairs[c], scale);
        }
    }
}
#endif

// sum[c] += dot of kQuads quads of codes, at most kMaxCode, with x[c].
template <int kQuads, int kMaxCode, int C>
void add_dot(const uint8_t* codes, const int8_t* const* x, int64_t at, WideInt* sum) {
#ifdef LK_VNNI
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad) {
        const WideInt u = wide_load(codes + quad * kLanes * 4);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            sum[c] = _mm512_dpbusd_epi32(sum[c], u, broadcast_four(x[c] + at + quad * 4));
        }
    }
#else
    add_scaled<kQuads, short_quads(kQuads, kMaxCode), kMaxCode, C>(codes, x, at, _mm256_set1_epi16(1), sum);
#endif
}

// Adds the dot products over n elements from element `at` of C tokens to y[token, lane].
template <class Format, int C>
void dot_plain(const Tile& tile, int n, const QuantizedRow* x, int64_t at, float* y, int64_t y_stride) {
    const int8_t* q[C];
    const float* d[C];
    WideFloat total[C];
    for (int c = 0; c < C; ++c) {
        q[c] = x[c].plain.q + at;
        d[c] = x[c].plain.d + at / kBlock;
        total[c] = load_floats<WideFloat>(y + c * y_stride);
    }
    for (int b = 0; b < n / kBlock; ++b) {
        WideInt products[C];
        for (int c = 0; c < C; ++c) {
            products[c] = wide_set(-Format::kOffset * x[c].plain.q_sum[at / kBlock + b]);
        }
        add_dot<8, Format::kMaxCode, C>(tile.codes + b * kBlock * kLanes, q, b * kBlock, products);
        const WideFloat scale = load_floats<WideFloat>(tile.scale + b * kLanes);
        for (int c = 0; c < C; ++c) {
            const WideFloat factor = multiply(scale, set_floats<WideFloat>(d[c][b]));
            total[c] = multiply_add(factor, to_floats(products[c]), total[c]);
            if constexpr (Format::kHasMin) {
                const WideFloat sum = set_floats<WideFloat>(x[c].plain.sum[at / kBlock + b]);
                total[c] = multiply_add(load_floats<WideFloat>(tile.min + b * kLanes), sum, total[c]);
            }
        }
    }
    for (int c = 0; c < C; ++c) {
        store_floats(y + c * y_stride, total[c]);
    }
}

// sum[c] += dot of kScaled codes with x[c], times the lanes' integer scale.
template <class Format, int C>
void add_part(const uint8_t* codes, const int8_t* const* x, int64_t at, WideInt scale, WideInt* sum) {
    constexpr int kQuads = Format::kScaled / 4;
    constexpr int kStep = short_quads(kQuads, Format::kMaxCode);
#ifdef LK_VNNI
    constexpr int kTogether = short_sums<Format>() ? kStep : kQuads;
    for (int first = 0; first < kQuads; first += kTogether) {
        WideInt products[C];
        set_zero<C>(products);
        add_dot<kTogether, Format::kMaxCode, C>(codes + first * kLanes * 4, x, at + first * 4, products);
        for (int c = 0; c < C; ++c) {
            sum[c] = short_sums<Format>() ? add_dot_i16(sum[c], products[c], scale)
                                          : _mm512_add_epi32(sum[c], _mm512_mullo_epi32(products[c], scale));
        }
    }
#else
    add_scaled<kQuads, kStep, Format::kMaxCode, C>(codes, x, at, scale, sum);
#endif
}

template <class Format, int C>
void dot_super(const Tile& tile, int n, const QuantizedRow* x, int64_t at, float* y, int64_t y_stride) {
    constexpr int kScales = kSuperBlock / Format::kScaled;
    const int8_t* q[C];
    for (int c = 0; c < C; ++c) {
        q[c] = x[c].super.q + at;
    }
    for (int b = 0; b < n / kSuperBlock; ++b) {
        const auto add_sums = [&](WideInt* sums) {
            for (int pair = 0; pair < 8; ++pair) {
                const WideInt factors = wide_load(tile.sum_scale + (b * 8 + pair) * kLanes);
                for (int c = 0; c < C; ++c) {
                    const WideInt two = broadcast_four(x[c].super.sums + at / 16 + b * 16 + pair * 2);
                    sums[c] = add_dot_i16(sums[c], factors, two);
                }
            }
        };
        WideInt products[C];
        set_zero<C>(products);
        if constexpr (!Format::kHasMin) {
            add_sums(products);
        }
        for (int j = 0; j < kScales; ++j) {
            const int from = b * kSuperBlock + j * Format::kScaled;
            const WideInt scale = wide_load(tile.integer_scale + (b * kScales + j) * kLanes);
            add_part<Format, C>(tile.codes + from * kLanes, q, from, scale, products);
        }
        const WideFloat scale = load_floats<WideFloat>(tile.scale + b * kLanes);
        WideFloat total[C];
        for (int c = 0; c < C; ++c) {
            const WideFloat d = set_floats<WideFloat>(x[c].super.d[at / kSuperBlock + b]);
            total[c] =
                multiply_add(multiply(scale, d), to_floats(products[c]), load_floats<WideFloat>(y + c * y_stride));
        }
        if constexpr (Format::kHasMin) {
            set_zero<C>(products);
            add_sums(products);
            const WideFloat min = load_floats<WideFloat>(tile.min + b * kLanes);
            for (int c = 0; c < C; ++c) {
                const WideFloat d = set_floats<WideFloat>(x[c].super.d[at / kSuperBlock + b]);
                total[c] = multiply_add(multiply(min, d), to_floats(products[c]), total[c]);
            }
        }
        for (int c = 0; c < C; ++c) {
            store_floats(y + c * y_stride, total[c]);
        }
    }
}

void clear(float* y, int n_cols, int64_t y_stride) {
    for (int c = 0; c < n_cols; ++c) {
        std::fill_n(y + c * y_stride, kLanes, 0.0f);
    }
}

template <class Format>
int64_t matmul_codes(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride) {
    constexpr int kBlockElements = kSuper<Format> ? kSuperBlock : kBlock;
    Tile tile;
    int64_t row = row_begin;
    for (; row + kLanes <= row_end; row += kLanes) {
        clear(y + row, n_cols, y_stride);
        for (int64_t at = 0; at < w.n_cols; at += kDepth) {
            const int n = static_cast<int>(std::min<int64_t>(kDepth, w.n_cols - at));
            const uint8_t* from = w.data + row * w.row_bytes + at / kBlockElements * sizeof(typename Format::Block);
            if constexpr (kSuper<Format>) {
                unpack_super<Format>(from, w.row_bytes, n, tile);
            } else {
                unpack_plain<Format>(from, w.row_bytes, n, tile);
            }
            for_columns<kColumns>(n_cols, [&]<int C>(std::integral_constant<int, C>, int c) {
                if constexpr (kSuper<Format>) {
                    dot_super<Format, C>(tile, n, x + c, at, y + c * y_stride + row, y_stride);
                } else {
                    dot_plain<Format, C>(tile, n, x + c, at, y + c * y_stride + row, y_stride);
                }
            });
        }
    }
    return row;
}

}  // namespace

int64_t matmul_tiles(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride) {
    return with_block_format(w.type, [&]<class Format>(std::type_identity<Format>) {
        return matmul_codes<Format>(w, row_begin, row_end, x, n_cols, y, y_stride);
    });
}

}  // namespace lk::cpu::LK_SIMD
