// Portable kernels over packed keys and values. Integer sums are exact, so results equal those of unpack_codes and
// dot_codes bit for bit.
//
// A piece is 16 codes in one vector: four lanes of four codes, where a lane is a token (keys) or a channel (values).
// Even and odd codes are multiplied apart, in 16 bits, because vectors have no portable byte product. So each lane has
// two 16-bit sums, which are added at the end.
#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "backend/cpu/kernels_portable.h"
#include "backend/cpu/packed_codes.h"
#include "backend/cpu/row_groups.h"
#include "backend/cpu/simd_portable.h"

namespace lk::cpu::portable {

namespace {

static_assert(std::endian::native == std::endian::little);  // even codes are the low bytes of 16-bit elements

constexpr int kLanes = 4;  // of a piece
constexpr int kLargestWeight = 127;
constexpr int kScoreRows = 3;  // that share the unpacked codes: as many as the registers hold
constexpr int kAccumulateRows = 4;
constexpr int kTokenQuads = kUnitTokens / 4;  // of a unit of values

// Even and odd bytes of a piece, widened: codes, or the weights that multiply them.
struct Halves {
    Shorts even;
    Shorts odd;
};

// The codes at bits [shift, shift + kBits) of every byte.
template <int kBits>
Halves codes_at(Shorts x, int shift) {
    constexpr int16_t kMask = (1 << kBits) - 1;
    return {(x >> shift) & kMask, (x >> (8 + shift)) & kMask};
}

// Broadcasts four weights of a row to every lane.
Halves load_four(const int8_t* w) {
    int32_t four;
    std::memcpy(&four, w, sizeof four);
    const Shorts all = reinterpret_cast<Shorts>(Ints{} + four);
    return {(all << 8) >> 8, all >> 8};
}

Shorts add_products(Shorts sum, const Halves& codes, const Halves& weights) {
    return sum + codes.even * weights.even + codes.odd * weights.odd;
}

// Adds the two sums of each lane.
Ints lane_sums(Shorts sums) {
    const Ints pairs = reinterpret_cast<Ints>(sums);
    return ((pairs << 16) >> 16) + (pairs >> 16);
}

// Scores of a tile of keys and R rows. A 16-bit sum grows by two products per quad, and a chain ends before the sum
// overflows.
template <int kBits, int R>
void score_rows(const uint8_t* quads, int n_quads, int tile_tokens, const int8_t* w, int w_stride, const float* step,
                const float* bias, float* scores, int ld) {
    constexpr int kPieces = 8 / kBits;  // in a vector of packed codes
    constexpr int kChain = 32767 / (2 * kLargestWeight * ((1 << kBits) - 1));
    const int quad_bytes = tile_tokens * 4 * kBits / 8;
    for (int at = 0; at < quad_bytes; at += kVectorBytes) {
        Ints sums[R][kPieces] = {};
        for (int begin = 0; begin < n_quads; begin += kChain) {
            Shorts chain[R][kPieces] = {};
            const int end = std::min(n_quads, begin + kChain);
            for (int quad = begin; quad < end; ++quad) {
                const Shorts x = load<Shorts>(quads + quad * quad_bytes + at);
                Halves weights[R];
                for (int r = 0; r < R; ++r) {
                    weights[r] = load_four(w + r * w_stride + 4 * quad);
                }
#pragma GCC unroll 4
                for (int i = 0; i < kPieces; ++i) {
                    const Halves codes = codes_at<kBits>(x, kBits * i);
                    for (int r = 0; r < R; ++r) {
                        chain[r][i] = add_products(chain[r][i], codes, weights[r]);
                    }
                }
            }
            for (int r = 0; r < R; ++r) {
                for (int i = 0; i < kPieces; ++i) {
                    sums[r][i] += lane_sums(chain[r][i]);
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            for (int i = 0; i < kPieces; ++i) {
                const int token = (i * quad_bytes + at) / 4;
                store(scores + r * ld + token, step[r] * to_floats(sums[r][i]) + bias[r]);
            }
        }
    }
}

// The codes of token quad kQuad and four channels of a block of values, the first four or the others.
template <int kBits, int kQuad>
Halves value_codes(const uint8_t* block, bool others) {
    constexpr int kPlaneBits = kBits == 3 ? 2 : kBits;
    constexpr int kPlaneBytes = kUnitTokens * kBlockChannels * kPlaneBits / 8;
    constexpr int kFirst = kQuad * 4 * kBlockChannels;  // code
    const int half = others ? 1 : 0;
    const Shorts x = load<Shorts>(block + kFirst % kPlaneBytes + kVectorBytes * half);
    Halves codes = codes_at<kPlaneBits>(x, kPlaneBits * (kFirst / kPlaneBytes));
    if constexpr (kBits == 3) {  // a plane of 16 bytes has the high bits
        const Halves high = codes_at<1>(load<Shorts>(block + kPlaneBytes), kFirst / kVectorBytes + half);
        codes.even |= high.even << 2;
        codes.odd |= high.odd << 2;
    }
    return codes;
}

// Adds weighted values to acc for R rows.
template <int kBits, int R>
void accumulate_rows(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, const int8_t* w, int w_stride,
                     const float* step, const float* bias, float* acc, int acc_stride) {
    static_assert(kMostUnits * kTokenQuads * 2 * kLargestWeight * ((1 << kBits) - 1) <= 32767);
    constexpr int kBlockBytes = kUnitTokens * kBlockChannels * kBits / 8;
    Halves weights[kMostUnits][kTokenQuads][R];
    for (int unit = 0; unit < n_units; ++unit) {
        for (int quad = 0; quad < kTokenQuads; ++quad) {
            for (int r = 0; r < R; ++r) {
                weights[unit][quad][r] = load_four(w + r * w_stride + unit * kUnitTokens + 4 * quad);
            }
        }
    }
    for (int channel = 0; channel < n_blocks * kBlockChannels; channel += kLanes) {
        const uint8_t* block = units + channel / kBlockChannels * kBlockBytes;
        const bool others = channel % kBlockChannels != 0;
        Shorts sums[R] = {};
        for (int unit = 0; unit < n_units; ++unit, block += unit_bytes) {
            const auto add_quad = [&]<int kQuad>(std::integral_constant<int, kQuad>) {
                const Halves codes = value_codes<kBits, kQuad>(block, others);
                for (int r = 0; r < R; ++r) {
                    sums[r] = add_products(sums[r], codes, weights[unit][kQuad][r]);
                }
            };
            add_quad(std::integral_constant<int, 0>());
            add_quad(std::integral_constant<int, 1>());
            add_quad(std::integral_constant<int, 2>());
            add_quad(std::integral_constant<int, 3>());
        }
        for (int r = 0; r < R; ++r) {
            float* const to = acc + r * acc_stride + channel;
            store(to, load<Floats>(to) + (step[r] * to_floats(lane_sums(sums[r])) + bias[r]));
        }
    }
}

}  // namespace

void score_packed(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                  const float* step, const float* bias, int n_rows, float* scores, int ld) {
    for_rows<kScoreRows>(n_rows, [&]<int R>(std::integral_constant<int, R>, int r) {
        const auto score = bits == 2 ? score_rows<2, R> : score_rows<4, R>;
        score(quads, n_quads, tile_tokens, w + r * w_stride, w_stride, step + r, bias + r, scores + r * ld, ld);
    });
}

void accumulate_packed(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits, const int8_t* w,
                       int w_stride, const float* step, const float* bias, int n_rows, float* acc, int acc_stride) {
    for_rows<kAccumulateRows>(n_rows, [&]<int R>(std::integral_constant<int, R>, int r) {
        const auto accumulate = bits == 2   ? accumulate_rows<2, R>
                                : bits == 3 ? accumulate_rows<3, R>
                                            : accumulate_rows<4, R>;
        accumulate(units, unit_bytes, n_units, n_blocks, w + r * w_stride, w_stride, step + r, bias + r,
                   acc + r * acc_stride, acc_stride);
    });
}

}  // namespace lk::cpu::portable
