#include "backend/cpu/tiles_avx2.h"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "backend/cpu/formats_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kDepth = 2048;      // elements per row in a tile of codes, which fits the L1 or L2 cache
constexpr int kFloatDepth = 512;  // the same for a tile of floats

// Tokens whose sums fit the registers (16 of them; 32 with AVX-512).
constexpr int kFloatColumns = 8;
#ifdef LK_VNNI
constexpr int kColumns = 8;
#else
constexpr int kColumns = 4;
#endif

// Splits n tokens into groups of kMost, then 4, 2 and 1. Calls body(integral_constant of the size, first token).
template <int kMost, class Body>
void for_columns(int n, const Body& body) {
    int c = 0;
    const auto groups = [&]<int C>(std::integral_constant<int, C> count) {
        for (; c + C <= n; c += C) {
            body(count, c);
        }
    };
    groups(std::integral_constant<int, kMost>());
    groups(std::integral_constant<int, 4>());
    groups(std::integral_constant<int, 2>());
    groups(std::integral_constant<int, 1>());
}

// kLanes rows as codes with their scales. The format determines which arrays are filled.
struct Tile {
    alignas(64) uint8_t codes[kDepth * kLanes];                   // [element / 4, lane, 4]
    alignas(64) float scale[kDepth / 16 * kLanes];                // [block, lane]
    alignas(64) float min[kDepth / 32 * kLanes];                  // [block, lane]; blocks of 32
    alignas(64) int32_t sum_scale[kDepth / 32 * kLanes];          // [pair of 16 elements, lane]: two 16-bit factors
    alignas(64) float sum_factor[kDepth / kSuperBlock * kLanes];  // [super block, lane]
};

// Transposes eight vectors of eight 32-bit values. Stores vector j at out + j * stride_bytes.
void store_transposed(const __m256i* v, void* out, ptrdiff_t stride_bytes) {
    __m256i a[8];
    __m256i b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        char* p = static_cast<char*>(out) + i * stride_bytes;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 4 * stride_bytes),
                            _mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
    }
}

// Returns {value(0), ..., value(7)}.
template <class Value>
auto of_eight(const Value& value) {
    return [&]<int... I>(std::integer_sequence<int, I...>) {
        return std::array{value(I)...};
    }
    (std::make_integer_sequence<int, 8>());
}

// The offset that makes codes unsigned. Without VNNI, products of codes above 127 would overflow 16 bits, so such
// formats stay signed.
template <class Format>
constexpr int tile_offset() {
#ifdef LK_VNNI
    return Format::kOffset;
#else
    return Format::kMaxCode > 127 ? 0 : Format::kOffset;
#endif
}

// Unpacks n elements of kLanes rows from `row` on; blocks of 32.
template <class Format>
void unpack_plain(const uint8_t* row, int64_t row_bytes, int n, Tile& tile) {
    constexpr int kOffset = tile_offset<Format>();
    for (int half = 0; half < kLanes; half += 8) {
        for (int b = 0; b < n / 32; ++b) {
            __m256i codes[8];
            for (int i = 0; i < 8; ++i) {
                const auto* blocks = reinterpret_cast<const typename Format::Block*>(row + (half + i) * row_bytes);
                const Format format(blocks[b]);
                codes[i] = _mm256_add_epi8(format.codes(), _mm256_set1_epi8(static_cast<char>(kOffset)));
                tile.scale[b * kLanes + half + i] = format.scale();
                if constexpr (Format::kOffset == 0) {
                    tile.min[b * kLanes + half + i] = format.min();
                }
            }
            store_transposed(codes, tile.codes + (b * 8 * kLanes + half) * 4, kLanes * 4);
        }
    }
}

// The same for blocks of 256.
template <class Format>
void unpack_super(const uint8_t* row, int64_t row_bytes, int n, Tile& tile) {
    constexpr int kScales = kSuperBlock / Format::kScaled;
    for (int half = 0; half < kLanes; half += 8) {
        for (int b = 0; b < n / kSuperBlock; ++b) {
            const auto formats = of_eight([&](int i) {
                return Format(reinterpret_cast<const typename Format::Block*>(row + (half + i) * row_bytes)[b]);
            });
            __m256i v[8];
            for (int part = 0; part < 8; ++part) {
                for (int i = 0; i < 8; ++i) {
                    v[i] = formats[i].codes(part);
                }
                store_transposed(v, tile.codes + ((b * 8 + part) * 8 * kLanes + half) * 4, kLanes * 4);
            }
            for (int part = 0; part < kScales / 8; ++part) {
                for (int i = 0; i < 8; ++i) {
                    const __m256 scales = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(formats[i].eight_scales(part)));
                    v[i] = _mm256_castps_si256(_mm256_mul_ps(scales, _mm256_set1_ps(formats[i].factor())));
                }
                store_transposed(v, tile.scale + (b * kScales + part * 8) * kLanes + half, kLanes * 4);
            }
            for (int i = 0; i < 8; ++i) {
                v[i] = formats[i].sum_scale;
                tile.sum_factor[b * kLanes + half + i] = formats[i].sum_factor();
            }
            store_transposed(v, tile.sum_scale + b * 8 * kLanes + half, kLanes * 4);
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

// sum[c] += dot of kQuads quads of codes, each at most kMaxCode, with x[c].
template <int kQuads, int kMaxCode, int C>
void dot_quads(const uint8_t* codes, const int8_t* const* x, int64_t at, WideInt* sum) {
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
    // The number of quads, two products each, whose sum fits 16 bits.
    constexpr int kStep = kMaxCode > 127 ? 1 : std::min(kQuads, 32767 / (2 * 127 * kMaxCode));
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
            sum[c] = add_dot_i16(sum[c], pairs[c], _mm256_set1_epi16(1));
        }
    }
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
        d[c] = x[c].plain.d + at / 32;
        total[c] = load_floats<WideFloat>(y + c * y_stride);
    }
    for (int b = 0; b < n / 32; ++b) {
        WideInt products[C];
        for (int c = 0; c < C; ++c) {
            products[c] = wide_set(-tile_offset<Format>() * x[c].plain.q_sum[at / 32 + b]);
        }
        dot_quads<8, Format::kMaxCode, C>(tile.codes + b * 32 * kLanes, q, b * 32, products);
        const WideFloat scale = load_floats<WideFloat>(tile.scale + b * kLanes);
        for (int c = 0; c < C; ++c) {
            const WideFloat factor = multiply(scale, set_floats<WideFloat>(d[c][b]));
            total[c] = multiply_add(factor, to_floats(products[c]), total[c]);
            if constexpr (Format::kOffset == 0) {
                const WideFloat sum = set_floats<WideFloat>(x[c].plain.sum[at / 32 + b]);
                total[c] = multiply_add(load_floats<WideFloat>(tile.min + b * kLanes), sum, total[c]);
            }
        }
    }
    for (int c = 0; c < C; ++c) {
        store_floats(y + c * y_stride, total[c]);
    }
}

template <class Format, int C>
void dot_super(const Tile& tile, int n, const QuantizedRow* x, int64_t at, float* y, int64_t y_stride) {
    constexpr int kScales = kSuperBlock / Format::kScaled;
    const int8_t* q[C];
    for (int c = 0; c < C; ++c) {
        q[c] = x[c].super.q + at;
    }
    for (int b = 0; b < n / kSuperBlock; ++b) {
        WideFloat part[C];
        for (int c = 0; c < C; ++c) {
            part[c] = set_floats<WideFloat>(0.0f);
        }
        WideInt products[C];
        for (int j = 0; j < kScales; ++j) {
            const int from = b * kSuperBlock + j * Format::kScaled;
            set_zero<C>(products);
            dot_quads<Format::kScaled / 4, Format::kMaxCode, C>(tile.codes + from * kLanes, q, from, products);
            const WideFloat scale = load_floats<WideFloat>(tile.scale + (b * kScales + j) * kLanes);
            for (int c = 0; c < C; ++c) {
                part[c] = multiply_add(scale, to_floats(products[c]), part[c]);
            }
        }
        set_zero<C>(products);
        for (int pair = 0; pair < 8; ++pair) {
            const WideInt factors = wide_load(tile.sum_scale + (b * 8 + pair) * kLanes);
            for (int c = 0; c < C; ++c) {
                const WideInt sums = broadcast_four(x[c].super.sums + at / 16 + b * 16 + pair * 2);
                products[c] = add_dot_i16(products[c], factors, sums);
            }
        }
        const WideFloat factor = load_floats<WideFloat>(tile.sum_factor + b * kLanes);
        for (int c = 0; c < C; ++c) {
            part[c] = multiply_add(factor, to_floats(products[c]), part[c]);
            const WideFloat d = set_floats<WideFloat>(x[c].super.d[at / kSuperBlock + b]);
            store_floats(y + c * y_stride, multiply_add(part[c], d, load_floats<WideFloat>(y + c * y_stride)));
        }
    }
}

// y[c * y_stride + lane] += sum over i < n of w[i * w_stride + lane] * x[c][i], for a vector of lanes.
template <class Vector, int C>
void multiply_tile(const float* w, int w_stride, int n, const float* const* x, float* y, int64_t y_stride) {
    Vector sum[C];
    for (int c = 0; c < C; ++c) {
        sum[c] = load_floats<Vector>(y + c * y_stride);
    }
    for (int i = 0; i < n; ++i) {
        const Vector lanes = load_floats<Vector>(w + static_cast<ptrdiff_t>(i) * w_stride);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            sum[c] = multiply_add(lanes, set_floats<Vector>(x[c][i]), sum[c]);
        }
    }
    for (int c = 0; c < C; ++c) {
        store_floats(y + c * y_stride, sum[c]);
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

template <class Float>
int64_t matmul_floats(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                      int64_t y_stride) {
    alignas(64) float tile[kFloatDepth * kLanes];  // [element, lane]
    int64_t row = row_begin;
    for (; row + kLanes <= row_end; row += kLanes) {
        clear(y + row, n_cols, y_stride);
        for (int64_t at = 0; at < w.n_cols; at += kFloatDepth) {
            const int n = static_cast<int>(std::min<int64_t>(kFloatDepth, w.n_cols - at));
            const auto element = [&](int lane, int i) {
                return w.data + (row + lane) * w.row_bytes + (at + i) * Float::kBytes;
            };
            int i = 0;
            for (; i + 8 <= n; i += 8) {
                for (int half = 0; half < kLanes; half += 8) {
                    __m256i v[8];
                    for (int lane = 0; lane < 8; ++lane) {
                        v[lane] = _mm256_castps_si256(Float::load8(element(half + lane, i)));
                    }
                    store_transposed(v, tile + i * kLanes + half, kLanes * 4);
                }
            }
            for (; i < n; ++i) {
                for (int lane = 0; lane < kLanes; ++lane) {
                    tile[i * kLanes + lane] = Float::load(element(lane, i));
                }
            }
            for_columns<kFloatColumns>(n_cols, [&]<int C>(std::integral_constant<int, C>, int c) {
                const float* columns[C];
                for (int j = 0; j < C; ++j) {
                    columns[j] = x[c + j].x + at;
                }
                multiply_tile<WideFloat, C>(tile, kLanes, n, columns, y + c * y_stride + row, y_stride);
            });
        }
    }
    return row;
}

}  // namespace

int64_t matmul_tiles(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
                     int64_t y_stride) {
    return with_format(w.type, [&]<class Format>(std::type_identity<Format>) {
        if constexpr (kIsFloat<Format>) {
            return matmul_floats<Format>(w, row_begin, row_end, x, n_cols, y, y_stride);
        } else {
            return matmul_codes<Format>(w, row_begin, row_end, x, n_cols, y, y_stride);
        }
    });
}

void multiply_floats(const float* w, int w_stride, int n, int lanes, const float* x, int x_stride, int n_cols, float* y,
                     int y_stride) {
    for_columns<kFloatColumns>(n_cols, [&]<int C>(std::integral_constant<int, C>, int c) {
        const float* columns[C];
        for (int j = 0; j < C; ++j) {
            columns[j] = x + (c + j) * x_stride;
        }
        int lane = 0;
        for (; lane + kLanes <= lanes; lane += kLanes) {
            multiply_tile<WideFloat, C>(w + lane, w_stride, n, columns, y + c * y_stride + lane, y_stride);
        }
        for (; lane < lanes; lane += 8) {
            multiply_tile<__m256, C>(w + lane, w_stride, n, columns, y + c * y_stride + lane, y_stride);
        }
    });
}

}  // namespace lk::cpu::LK_SIMD
