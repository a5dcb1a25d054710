// AVX2 matmul for a few tokens and the quantization of activations. Matmuls for many tokens: tiles_avx2.h.
//
// Every dot product has one order of summing, in this file and in the tiles, so that a token's result does not depend
// on the other tokens of a call. Blocks: integer sums are exact in any order; each block's sum is scaled and added to
// one float in the order of the blocks. Floats: floats_avx2.cpp.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "backend/cpu/formats_avx2.h"
#include "backend/cpu/kernels_avx2.h"
#include "backend/cpu/simd_avx2.h"
#include "backend/cpu/tiles_avx2.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Rows are processed in groups of eight. First each row of a group is read from its beginning to its end, as
// prefetchers want it, and what its blocks give is kept; then one vector of eight rows' totals adds it up in the order
// of the blocks.
constexpr int kRows = 8;
constexpr int kKept = 8192;  // elements of a row for which it is kept at a time

// The rows of a group. The last row stands in for those that a group at the end of a range lacks.
struct RowGroup {
    const uint8_t* first;
    int64_t row_bytes;
    int last;

    const uint8_t* row(int r) const { return first + std::min(r, last) * row_bytes; }
};

// Asks for weights some kilobytes ahead: the next rows', while the sums of a group are added up.
constexpr int kAhead = 4096;

template <class Block>
void prefetch_ahead(const Block* block) {
    for (size_t i = 0; i < sizeof(Block); i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(block) + kAhead + i, _MM_HINT_T0);
    }
}

// The scale and the minimum of one block of each row.
struct KeptScales {
    half_t scale[kRows];
    half_t min[kRows];
};

// The products of a block of 32 in eight sums.
template <class Format>
__m256i dot_block(const typename Format::Block& block, const int8_t* q) {
    const __m256i codes = Format::codes(block);
    const __m256i a = load32(q);
    return Format::kMaxCode > 127 && Format::kOffset == 0
               ? dot_u8_i8(_mm256_abs_epi8(codes), _mm256_sign_epi8(a, codes))
               : dot_u8_i8(codes, a);
}

// Adds a block's products in eight rows, `sum`, with the rows' scales and minimums, to their totals.
template <class Format>
__m256 add_block(__m256i sum, __m256 scale, __m256 min, const QuantizedRow& x, int64_t b, __m256 total) {
    const __m256i offset = _mm256_set1_epi32(Format::kOffset * x.plain.q_sum[b]);
    const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(x.plain.d[b]));
    total = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offset)), total);
    return Format::kHasMin ? _mm256_fmadd_ps(min, _mm256_set1_ps(x.plain.sum[b]), total) : total;
}

// Dot products of kRows rows of blocks of 32.
template <class Format>
__m256 dot_plain(const RowGroup& rows, int64_t n, const QuantizedRow& x) {
    using Block = typename Format::Block;
    constexpr int kBlocks = kKept / kBlock;
    KeptScales scales[kBlocks];
    __m256i sums[kBlocks / 8][kRows];  // of eight blocks, one per lane
    __m256i last[3][kRows];            // eight sums of one block, for the blocks after the last four
    __m256 total = _mm256_setzero_ps();
    for (int64_t first = 0; first < n / kBlock; first += kBlocks) {
        const int n_blocks = static_cast<int>(std::min<int64_t>(kBlocks, n / kBlock - first));
        const int eights = n_blocks / 8 * 8;
        const int fours = n_blocks / 4 * 4;
        const int8_t* const q = x.plain.q + first * kBlock;
        for (int r = 0; r < kRows; ++r) {
            const auto* const blocks = reinterpret_cast<const Block*>(rows.row(r)) + first;
            const auto dot = [&](int b) {
                scales[b].scale[r] = blocks[b].d;
                if constexpr (Format::kHasMin) {
                    scales[b].min[r] = blocks[b].m;
                }
                return dot_block<Format>(blocks[b], q + b * kBlock);
            };
            for (int b = 0; b < eights; b += 8) {
                __m256i products[8];
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) {
                    if (i % 2 == 0 || sizeof(Block) > 32) {  // two small blocks share a cache line
                        prefetch_ahead(blocks + b + i);
                    }
                    products[i] = dot(b + i);
                }
                sums[b / 8][r] = sum_eight(products);
            }
            if (eights < fours) {
                const __m256i products[4] = {dot(eights), dot(eights + 1), dot(eights + 2), dot(eights + 3)};
                sums[eights / 8][r] = sum_four(products);
            }
            for (int b = fours; b < n_blocks; ++b) {
                last[b - fours][r] = dot(b);
            }
        }
        const auto add = [&](int b, __m256i sum) {
            const __m256 scale = load_half8(scales[b].scale);
            total =
                add_block<Format>(sum, scale, Format::kHasMin ? load_half8(scales[b].min) : scale, x, first + b, total);
        };
        for (int b = 0; b < fours; b += 8) {
            __m256i columns[8];
            store_transposed(sums[b / 8], columns, sizeof columns[0]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                add(b + i, columns[i]);
            }
            if (b < eights) {
#pragma GCC unroll 4
                for (int i = 4; i < 8; ++i) {
                    add(b + i, columns[i]);
                }
            }
        }
        for (int b = fours; b < n_blocks; ++b) {
            add(b, sum_eight(last[b - fours]));
        }
    }
    return total;
}

// The products of a block of 256 with their integer scales in eight sums.
template <class Format>
__m256i dot_block(const Format& format, const int8_t* q) {
#ifdef LK_VNNI
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512i pairs = _mm512_maddubs_epi16(format.wide_codes(i), wide_load(q + i * 64));
        sum = add_dot_i16(sum, pairs, format.wide_scales(i));
    }
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
#else
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        sum = add_dot_i16(sum, _mm256_maddubs_epi16(format.codes(i), load32(q + i * 32)), format.scales(i));
    }
    return sum;
#endif
}

// Dot products of kRows rows of blocks of 256, whose integer scales keep the sum of a block an integer.
template <class Format>
__m256 dot_super(const RowGroup& rows, int64_t n, const QuantizedRow& x) {
    constexpr int kBlocks = kKept / kSuperBlock;
    KeptScales scales[kBlocks];
    __m256i products[kBlocks][kRows];  // eight sums of one block
    __m256i sums[kBlocks][kRows];      // the same for minimums
    __m256 total = _mm256_setzero_ps();
    for (int64_t first = 0; first < n / kSuperBlock; first += kBlocks) {
        const int n_blocks = static_cast<int>(std::min<int64_t>(kBlocks, n / kSuperBlock - first));
        const int8_t* const q = x.super.q + first * kSuperBlock;
        const int16_t* const x_sums = x.super.sums + first * 16;
        for (int r = 0; r < kRows; ++r) {
            const auto* const blocks = reinterpret_cast<const typename Format::Block*>(rows.row(r)) + first;
            for (int b = 0; b < n_blocks; ++b) {
                prefetch_ahead(blocks + b);
                const Format format(blocks[b]);
                const __m256i sum = _mm256_madd_epi16(load32(x_sums + b * 16), format.sum_scale);
                const __m256i product = dot_block(format, q + b * kSuperBlock);
                scales[b].scale[r] = blocks[b].d;
                if constexpr (Format::kHasMin) {
                    products[b][r] = product;
                    scales[b].min[r] = blocks[b].dmin;
                    sums[b][r] = sum;
                } else {
                    products[b][r] = _mm256_add_epi32(product, sum);
                }
            }
        }
        for (int b = 0; b < n_blocks; ++b) {
            const __m256 d = _mm256_set1_ps(x.super.d[first + b]);
            const __m256 sum = _mm256_cvtepi32_ps(sum_eight(products[b]));
            total = _mm256_fmadd_ps(_mm256_mul_ps(load_half8(scales[b].scale), d), sum, total);
            if constexpr (Format::kHasMin) {
                const __m256 min = _mm256_mul_ps(load_half8(scales[b].min), d);
                total = _mm256_fnmadd_ps(min, _mm256_cvtepi32_ps(sum_eight(sums[b])), total);
            }
        }
    }
    return total;
}

// Dot products of the rows [row_begin, row_end) with one token.
template <class Format>
void multiply_rows(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow& x, float* y) {
    for (int64_t row = row_begin; row < row_end; row += kRows) {
        const int last = static_cast<int>(std::min<int64_t>(kRows, row_end - row)) - 1;
        const RowGroup rows{w.data + row * w.row_bytes, static_cast<int64_t>(w.row_bytes), last};
        __m256 sums;
        if constexpr (kSuper<Format>) {
            sums = dot_super<Format>(rows, w.n_cols, x);
        } else {
            sums = dot_plain<Format>(rows, w.n_cols, x);
        }
        if (row + kRows <= row_end) {
            _mm256_storeu_ps(y + row, sums);
        } else {
            float all[kRows];
            _mm256_storeu_ps(all, sums);
            std::copy_n(all, row_end - row, y + row);
        }
    }
}

float round_to_half(float x) {
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
}

// Quantizes n activations with one scale. Returns the scale, largest / 127; it is NaN or infinite if an activation is.
float quantize_block(const float* x, int n, int8_t* q) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    // Compares the bits of magnitudes, which put NaN above infinity; a float maximum would drop NaN.
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8) {
        largest = _mm256_max_epi32(largest, _mm256_and_si256(load32(x + i), magnitude));
    }
    const float top = std::bit_cast<float>(max_lanes(largest));
    const __m256 inverse = _mm256_set1_ps(finite_quotient(127.0f, top));
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

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum) {
    for (int b = 0; b < n / 32; ++b) {
        const float scale = quantize_block(x + b * 32, 32, q + b * 32);
        const __m256i ones = _mm256_set1_epi8(1);
        q_sum[b] = sum_lanes(dot_u8_i8(ones, load32(q + b * 32)));
        d[b] = round_to_half(scale);
        sum[b] = round_to_half(scale * static_cast<float>(q_sum[b]));
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
    if (activation_form(w.type) == ActivationForm::exact) {
        return matmul_floats(w, row_begin, row_end, x, n_cols, y, y_stride);
    }
    if (n_cols >= kTileMinColumns) {
        row_begin = matmul_tiles(w, row_begin, row_end, x, n_cols, y, y_stride);
    }
    with_block_format(w.type, [&]<class Format>(std::type_identity<Format>) {
        for (int c = 0; c < n_cols; ++c) {
            multiply_rows<Format>(w, row_begin, row_end, x[c], y + c * y_stride);
        }
    });
}

}  // namespace lk::cpu::LK_SIMD
