// NEON matmul: weights as signed codes, 32 at a time, times int8 activations.
#include <cstring>

#include "backend/cpu/kernels_neon.h"
#include "quant/blocks.h"

namespace lk::cpu::LK_SIMD {

namespace {

constexpr int kColumns = 4;  // tokens that share one unpacked block

struct Codes {
    int8x16_t low, high;  // elements 0-15 and 16-31
};

int32x4_t dot(const Codes& w, const int8_t* q) {
    return add_dot(add_dot(vdupq_n_s32(0), w.low, vld1q_s8(q)), w.high, vld1q_s8(q + 16));
}

// Unpacks 16 bytes of nibbles to 32 codes, low nibbles first.
Codes nibbles(const uint8_t* qs) {
    const uint8x16_t x = vld1q_u8(qs);
    return {vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(x, 4))};
}

// Unpacks 16 bits to 16 bytes: 16 for a set bit, else 0.
int8x16_t fifth_bits(const uint8_t* qh) {
    static constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t x = vcombine_u8(vdup_n_u8(qh[0]), vdup_n_u8(qh[1]));
    return vreinterpretq_s8_u8(vandq_u8(vtstq_u8(x, vld1q_u8(kBits)), vdupq_n_u8(16)));
}

Codes fives(const uint8_t* qh, const uint8_t* qs) {
    const Codes c = nibbles(qs);
    return {vorrq_s8(c.low, fifth_bits(qh)), vorrq_s8(c.high, fifth_bits(qh + 2))};
}

Codes lower(const Codes& c, int8_t by) {
    return {vsubq_s8(c.low, vdupq_n_s8(by)), vsubq_s8(c.high, vdupq_n_s8(by))};
}

// Blocks of 32: codes, scale and, for some formats, a minimum.
struct Plain {
    Codes codes;
    float scale, min;
};

Plain open(const BlockQ8_0& b) {
    return {{vld1q_s8(b.qs), vld1q_s8(b.qs + 16)}, half_to_float(b.d), 0};
}
Plain open(const BlockQ4_0& b) {
    return {lower(nibbles(b.qs), 8), half_to_float(b.d), 0};
}
Plain open(const BlockQ4_1& b) {
    return {nibbles(b.qs), half_to_float(b.d), half_to_float(b.m)};
}
Plain open(const BlockQ5_0& b) {
    return {lower(fives(b.qh, b.qs), 16), half_to_float(b.d), 0};
}
Plain open(const BlockQ5_1& b) {
    return {fives(b.qh, b.qs), half_to_float(b.d), half_to_float(b.m)};
}

// Blocks of 256: codes, 32 at a time, with an integer scale per 16, times d; and an integer minimum per 16, times dmin,
// for the sums of 16 activations.
struct Super {
    Codes codes[8];
    int16_t scale[16];
    int16_t min[16];
    float d, dmin;
};

Codes two_bits(const uint8_t* qs, int i) {
    const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-2 * (i % 4)));
    const uint8_t* from = qs + 32 * (i / 4);
    const uint8x16_t mask = vdupq_n_u8(3);
    return {vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vld1q_u8(from), down), mask)),
            vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vld1q_u8(from + 16), down), mask))};
}

// `value` for each of 32 bytes with bit i set, else 0.
Codes bit(const uint8_t* bytes, int i, int8_t value) {
    const uint8x16_t one = vdupq_n_u8(static_cast<uint8_t>(1 << i));
    const int8x16_t set = vdupq_n_s8(value);
    return {vandq_s8(vreinterpretq_s8_u8(vtstq_u8(vld1q_u8(bytes), one)), set),
            vandq_s8(vreinterpretq_s8_u8(vtstq_u8(vld1q_u8(bytes + 16), one)), set)};
}

Codes either(const Codes& a, const Codes& b) {
    return {vorrq_s8(a.low, b.low), vorrq_s8(a.high, b.high)};
}

void open(const BlockQ2_K& b, Super& s) {
    s.d = half_to_float(b.d);
    s.dmin = half_to_float(b.dmin);
    for (int j = 0; j < 16; ++j) {
        s.scale[j] = b.scales[j] & 15;
        s.min[j] = b.scales[j] >> 4;
    }
    for (int i = 0; i < 8; ++i) {
        s.codes[i] = two_bits(b.qs, i);
    }
}

void open(const BlockQ3_K& b, Super& s) {
    s.d = half_to_float(b.d);
    s.dmin = 0;
    for (int j = 0; j < 16; ++j) {
        s.scale[j] = static_cast<int16_t>(get_scale_q3_k(j, b.scales));
        s.min[j] = 0;
    }
    for (int i = 0; i < 8; ++i) {
        s.codes[i] = lower(either(two_bits(b.qs, i), bit(b.hmask, i, 4)), 4);
    }
}

Codes nibbles_of_64(const uint8_t* qs, int i) {
    const uint8_t* from = qs + i / 2 * 32;
    const int8x16_t down = vdupq_n_s8(i % 2 ? -4 : 0);
    const uint8x16_t mask = vdupq_n_u8(15);
    return {vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vld1q_u8(from), down), mask)),
            vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vld1q_u8(from + 16), down), mask))};
}

template <class Block>
void open_pairs(const Block& b, Super& s) {
    s.d = half_to_float(b.d);
    s.dmin = half_to_float(b.dmin);
    for (int j = 0; j < 8; ++j) {
        uint8_t sc;
        uint8_t m;
        get_scale_min_k4(j, b.scales, sc, m);
        s.scale[2 * j] = s.scale[2 * j + 1] = sc;
        s.min[2 * j] = s.min[2 * j + 1] = m;
    }
}

void open(const BlockQ4_K& b, Super& s) {
    open_pairs(b, s);
    for (int i = 0; i < 8; ++i) {
        s.codes[i] = nibbles_of_64(b.qs, i);
    }
}

void open(const BlockQ5_K& b, Super& s) {
    open_pairs(b, s);
    for (int i = 0; i < 8; ++i) {
        s.codes[i] = either(nibbles_of_64(b.qs, i), bit(b.qh, i, 16));
    }
}

void open(const BlockQ6_K& b, Super& s) {
    s.d = half_to_float(b.d);
    s.dmin = 0;
    for (int j = 0; j < 16; ++j) {
        s.scale[j] = b.scales[j];
        s.min[j] = 0;
    }
    for (int i = 0; i < 8; ++i) {
        const uint8_t* low = b.ql + i / 4 * 64 + i % 2 * 32;
        const uint8_t* high = b.qh + i / 4 * 32;
        const int8x16_t nibble = vdupq_n_s8(i % 4 < 2 ? 0 : -4);
        const int8x16_t two = vdupq_n_s8(static_cast<int8_t>(-2 * (i % 4)));
        const auto part = [&](int at) {
            const uint8x16_t four = vandq_u8(vshlq_u8(vld1q_u8(low + at), nibble), vdupq_n_u8(15));
            const uint8x16_t top = vandq_u8(vshlq_u8(vld1q_u8(high + at), two), vdupq_n_u8(3));
            return vreinterpretq_s8_u8(vorrq_u8(four, vshlq_n_u8(top, 4)));
        };
        s.codes[i] = lower({part(0), part(16)}, 32);
    }
}

template <class Block, int C>
void multiply_plain(const Tensor& w, int64_t row, const QuantizedRow* x, float* y, int64_t y_stride) {
    const Block* blocks = reinterpret_cast<const Block*>(w.data + row * w.row_bytes);
    float32x4_t sum[C];
    float min_sum[C] = {};
    for (float32x4_t& s : sum) {
        s = vdupq_n_f32(0);
    }
    for (int64_t b = 0; b < w.n_cols / kBlock; ++b) {
        const Plain block = open(blocks[b]);
        for (int c = 0; c < C; ++c) {
            const float32x4_t product = vcvtq_f32_s32(dot(block.codes, x[c].plain.q + b * kBlock));
            sum[c] = vfmaq_n_f32(sum[c], product, block.scale * x[c].plain.d[b]);
            min_sum[c] += block.min * x[c].plain.sum[b];
        }
    }
    for (int c = 0; c < C; ++c) {
        y[c * y_stride + row] = vaddvq_f32(sum[c]) + min_sum[c];
    }
}

template <class Block, int C>
void multiply_super(const Tensor& w, int64_t row, const QuantizedRow* x, float* y, int64_t y_stride) {
    const Block* blocks = reinterpret_cast<const Block*>(w.data + row * w.row_bytes);
    float sum[C] = {};
    for (int64_t b = 0; b < w.n_cols / kSuperBlock; ++b) {
        Super block;
        open(blocks[b], block);
        const int16x8_t min[2] = {vld1q_s16(block.min), vld1q_s16(block.min + 8)};
        for (int c = 0; c < C; ++c) {
            const int8_t* q = x[c].super.q + b * kSuperBlock;
            int32x4_t products = vdupq_n_s32(0);
            for (int i = 0; i < 8; ++i) {
                const int32x4_t low = add_dot(vdupq_n_s32(0), block.codes[i].low, vld1q_s8(q + 32 * i));
                const int32x4_t high = add_dot(vdupq_n_s32(0), block.codes[i].high, vld1q_s8(q + 32 * i + 16));
                products = vmlaq_n_s32(products, low, block.scale[2 * i]);
                products = vmlaq_n_s32(products, high, block.scale[2 * i + 1]);
            }
            int32x4_t mins = vdupq_n_s32(0);
            for (int i = 0; i < 2; ++i) {
                const int16x8_t sums = vld1q_s16(x[c].super.sums + b * 16 + 8 * i);
                mins = vmlal_s16(mins, vget_low_s16(sums), vget_low_s16(min[i]));
                mins = vmlal_high_s16(mins, sums, min[i]);
            }
            sum[c] += x[c].super.d[b] * (block.d * static_cast<float>(vaddvq_s32(products)) -
                                         block.dmin * static_cast<float>(vaddvq_s32(mins)));
        }
    }
    for (int c = 0; c < C; ++c) {
        y[c * y_stride + row] = sum[c];
    }
}

float32x4_t load_four(WeightType type, const uint8_t* p) {
    switch (type) {
    case WeightType::F16:
        return load_half4(p);
    case WeightType::BF16: {
        uint16x4_t bits;
        std::memcpy(&bits, p, sizeof(bits));
        return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
    }
    default:
        return vreinterpretq_f32_u8(vld1q_u8(p));
    }
}

template <WeightType kType, int C>
void multiply_float(const Tensor& w, int64_t row, const QuantizedRow* x, float* y, int64_t y_stride) {
    constexpr int kBytes = kType == WeightType::F32 ? 4 : 2;
    const uint8_t* from = w.data + row * w.row_bytes;
    float32x4_t sum[C];
    for (float32x4_t& s : sum) {
        s = vdupq_n_f32(0);
    }
    int64_t i = 0;
    for (; i + 4 <= w.n_cols; i += 4) {
        const float32x4_t four = load_four(kType, from + i * kBytes);
        for (int c = 0; c < C; ++c) {
            sum[c] = vfmaq_f32(sum[c], four, vld1q_f32(x[c].x + i));
        }
    }
    float tail[4];
    dequantize_row(kType, from + i * kBytes, tail, w.n_cols - i);
    for (int c = 0; c < C; ++c) {
        float total = vaddvq_f32(sum[c]);
        for (int64_t j = i; j < w.n_cols; ++j) {
            total += tail[j - i] * x[c].x[j];
        }
        y[c * y_stride + row] = total;
    }
}

using Multiply = void (*)(const Tensor& w, int64_t row, const QuantizedRow* x, float* y, int64_t y_stride);

template <int C>
Multiply multiply_of(WeightType type) {
    switch (type) {
    case WeightType::F32:
        return multiply_float<WeightType::F32, C>;
    case WeightType::F16:
        return multiply_float<WeightType::F16, C>;
    case WeightType::BF16:
        return multiply_float<WeightType::BF16, C>;
    case WeightType::Q8_0:
        return multiply_plain<BlockQ8_0, C>;
    case WeightType::Q4_0:
        return multiply_plain<BlockQ4_0, C>;
    case WeightType::Q4_1:
        return multiply_plain<BlockQ4_1, C>;
    case WeightType::Q5_0:
        return multiply_plain<BlockQ5_0, C>;
    case WeightType::Q5_1:
        return multiply_plain<BlockQ5_1, C>;
    case WeightType::Q2_K:
        return multiply_super<BlockQ2_K, C>;
    case WeightType::Q3_K:
        return multiply_super<BlockQ3_K, C>;
    case WeightType::Q4_K:
        return multiply_super<BlockQ4_K, C>;
    case WeightType::Q5_K:
        return multiply_super<BlockQ5_K, C>;
    case WeightType::Q6_K:
        return multiply_super<BlockQ6_K, C>;
    }
    return nullptr;
}

}  // namespace

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride) {
    const Multiply several = multiply_of<kColumns>(w.type);
    const Multiply one = multiply_of<1>(w.type);
    for (int64_t row = row_begin; row < row_end; ++row) {
        int c = 0;
        for (; c + kColumns <= n_cols; c += kColumns) {
            several(w, row, x + c, y + c * y_stride, y_stride);
        }
        for (; c < n_cols; ++c) {
            one(w, row, x + c, y + c * y_stride, y_stride);
        }
    }
}

}  // namespace lk::cpu::LK_SIMD
