#include "kv/codec/stock_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "kv/codec/cache_types.h"
#include "kv/codec/scalar_codec.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk::kv {

namespace {

static_assert(stock_format(LK_CACHE_Q8_0).block_bytes == sizeof(BlockQ8_0));
static_assert(stock_format(LK_CACHE_Q5_1).block_bytes == sizeof(BlockQ5_1));
static_assert(stock_format(LK_CACHE_Q5_0).block_bytes == sizeof(BlockQ5_0));
static_assert(stock_format(LK_CACHE_Q4_1).block_bytes == sizeof(BlockQ4_1));
static_assert(stock_format(LK_CACHE_Q4_0).block_bytes == sizeof(BlockQ4_0));
static_assert(stock_format(LK_CACHE_IQ4_NL).block_bytes == sizeof(BlockIQ4_NL));

// The element of largest magnitude, with its sign; the first one of several.
float extreme_of(const float* x) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
        largest = std::fabs(x[i]) > std::fabs(largest) ? x[i] : largest;
    }
    return largest;
}

// code(i): low four bits of element i.
template <class Code>
void set_nibbles(uint8_t* qs, Code code) {
    for (int i = 0; i < kBlock / 2; ++i) {
        qs[i] = static_cast<uint8_t>((code(i) & 15) | (code(i + kBlock / 2) & 15) << 4);
    }
}

template <class Code>
void set_fifth_bits(uint8_t* qh, Code code) {
    for (int byte = 0; byte < kBlock / 8; ++byte) {
        int bits = 0;
        for (int i = 0; i < 8; ++i) {
            bits |= (code(8 * byte + i) >> 4) << i;
        }
        qh[byte] = static_cast<uint8_t>(bits);
    }
}

void encode(const float* x, BlockQ8_0& b) {
    const float d = q8_scale(std::fabs(extreme_of(x)));
    b.d = float_to_half(d);
    for (int i = 0; i < kBlock; ++i) {
        b.qs[i] = static_cast<int8_t>(q8_code(x[i], d));
    }
}

void encode(const float* x, BlockQ4_0& b) {
    const float d = q4_scale(extreme_of(x));
    b.d = float_to_half(d);
    set_nibbles(b.qs, [&](int i) { return q4_code(x[i], d); });
}

void encode(const float* x, BlockQ5_0& b) {
    const float d = signed_scale(extreme_of(x), kQ5Zero);
    const auto code = [&](int i) { return signed_code(x[i], d, kQ5Zero); };
    b.d = float_to_half(d);
    set_nibbles(b.qs, code);
    set_fifth_bits(b.qh, code);
}

// The fields that Q4_1 and Q5_1 have in common. Returns the function of codes.
template <class Block>
auto encode_span(const float* x, int steps, Block& b) {
    const auto [least, most] = std::minmax_element(x, x + kBlock);
    const float d = span_scale(*least, *most, steps);
    const auto code = [x, m = *least, d, steps](int i) { return span_code(x[i], m, d, steps); };
    b.d = float_to_half(d);
    b.m = float_to_half(*least);
    set_nibbles(b.qs, code);
    return code;
}

void encode(const float* x, BlockQ4_1& b) {
    encode_span(x, kQ4Largest, b);
}

void encode(const float* x, BlockQ5_1& b) {
    set_fifth_bits(b.qh, encode_span(x, kQ5Largest, b));
}

// The codes map the extreme element to the lowest level; the scale is then fitted to the codes by least squares,
// weighted by the squared elements.
void encode(const float* x, BlockIQ4_NL& b) {
    const float first = extreme_of(x) / static_cast<float>(iq4_level(0));
    const auto code = [&](int i) { return iq4_code(x[i], first); };
    float along = 0;
    float square = 0;
    for (int i = 0; i < kBlock; ++i) {
        const float level = static_cast<float>(iq4_level(code(i)));
        const float weight = x[i] * x[i];
        along += weight * level * x[i];
        square += weight * level * level;
    }
    b.d = float_to_half(square > 0 ? along / square : 0.0f);
    set_nibbles(b.qs, code);
}

void decode_iq4(const uint8_t* blocks, float* out, int n) {
    const BlockIQ4_NL* const b = reinterpret_cast<const BlockIQ4_NL*>(blocks);
    for (int i = 0; i < n / kBlock; ++i, out += kBlock) {
        const float d = half_to_float(b[i].d);
        for (int j = 0; j < kBlock / 2; ++j) {
            out[j] = d * static_cast<float>(iq4_level(b[i].qs[j] & 15));
            out[j + kBlock / 2] = d * static_cast<float>(iq4_level(b[i].qs[j] >> 4));
        }
    }
}

template <class Block>
void encode_row(const float* x, int n, uint8_t* blocks) {
    for (int i = 0; i < n / kBlock; ++i) {
        encode(x + static_cast<ptrdiff_t>(i) * kBlock, reinterpret_cast<Block*>(blocks)[i]);
    }
}

}  // namespace

void encode_blocks(lk_cache_type type, const float* x, int n, uint8_t* blocks) noexcept {
    switch (type) {
    case LK_CACHE_Q8_0:
        return encode_row<BlockQ8_0>(x, n, blocks);
    case LK_CACHE_Q5_1:
        return encode_row<BlockQ5_1>(x, n, blocks);
    case LK_CACHE_Q5_0:
        return encode_row<BlockQ5_0>(x, n, blocks);
    case LK_CACHE_Q4_1:
        return encode_row<BlockQ4_1>(x, n, blocks);
    case LK_CACHE_IQ4_NL:
        return encode_row<BlockIQ4_NL>(x, n, blocks);
    default:
        return encode_row<BlockQ4_0>(x, n, blocks);
    }
}

void decode_blocks(lk_cache_type type, const uint8_t* blocks, float* out, int n) noexcept {
    switch (type) {
    case LK_CACHE_Q8_0:
        return dequantize_row(WeightType::Q8_0, blocks, out, n);
    case LK_CACHE_Q5_1:
        return dequantize_row(WeightType::Q5_1, blocks, out, n);
    case LK_CACHE_Q5_0:
        return dequantize_row(WeightType::Q5_0, blocks, out, n);
    case LK_CACHE_Q4_1:
        return dequantize_row(WeightType::Q4_1, blocks, out, n);
    case LK_CACHE_IQ4_NL:
        return decode_iq4(blocks, out, n);
    default:
        return dequantize_row(WeightType::Q4_0, blocks, out, n);
    }
}

}  // namespace lk::kv
