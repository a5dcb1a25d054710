#include "quant/blocks.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace lk {

static_assert(std::endian::native == std::endian::little, "blocks are read without byte swapping");

const WeightTypeTraits* weight_type_traits(uint32_t ggml_type) {
    static constexpr WeightTypeTraits f32 = {"F32", 1, 4};
    static constexpr WeightTypeTraits f16 = {"F16", 1, 2};
    static constexpr WeightTypeTraits bf16 = {"BF16", 1, 2};
    static constexpr WeightTypeTraits q4_0 = {"Q4_0", kBlock, sizeof(BlockQ4_0)};
    static constexpr WeightTypeTraits q4_1 = {"Q4_1", kBlock, sizeof(BlockQ4_1)};
    static constexpr WeightTypeTraits q5_0 = {"Q5_0", kBlock, sizeof(BlockQ5_0)};
    static constexpr WeightTypeTraits q5_1 = {"Q5_1", kBlock, sizeof(BlockQ5_1)};
    static constexpr WeightTypeTraits q8_0 = {"Q8_0", kBlock, sizeof(BlockQ8_0)};
    static constexpr WeightTypeTraits q2_k = {"Q2_K", kSuperBlock, sizeof(BlockQ2_K)};
    static constexpr WeightTypeTraits q3_k = {"Q3_K", kSuperBlock, sizeof(BlockQ3_K)};
    static constexpr WeightTypeTraits q4_k = {"Q4_K", kSuperBlock, sizeof(BlockQ4_K)};
    static constexpr WeightTypeTraits q5_k = {"Q5_K", kSuperBlock, sizeof(BlockQ5_K)};
    static constexpr WeightTypeTraits q6_k = {"Q6_K", kSuperBlock, sizeof(BlockQ6_K)};

    switch (static_cast<WeightType>(ggml_type)) {
    case WeightType::F32:
        return &f32;
    case WeightType::F16:
        return &f16;
    case WeightType::BF16:
        return &bf16;
    case WeightType::Q4_0:
        return &q4_0;
    case WeightType::Q4_1:
        return &q4_1;
    case WeightType::Q5_0:
        return &q5_0;
    case WeightType::Q5_1:
        return &q5_1;
    case WeightType::Q8_0:
        return &q8_0;
    case WeightType::Q2_K:
        return &q2_k;
    case WeightType::Q3_K:
        return &q3_k;
    case WeightType::Q4_K:
        return &q4_k;
    case WeightType::Q5_K:
        return &q5_k;
    case WeightType::Q6_K:
        return &q6_k;
    }
    return nullptr;
}

// A block is unpacked to one integer per element, then scaled. Every inner loop has a fixed length and no branches, and
// reads the same bits of consecutive bytes, so compilers vectorize it.
namespace {

// out[i] = q[i] * scale - minimum.
template <int kSize>
void scale_codes(const int8_t* q, float scale, float minimum, float* __restrict out) {
#pragma GCC unroll 1  // unrolled, GCC vectorizes across the blocks instead, which is slower
    for (int i = 0; i < kSize; ++i) {
        out[i] = static_cast<float>(q[i]) * scale - minimum;
    }
}

// q[i] = kBits bits of byte i, from bit `shift` on.
template <int kSize, int kBits>
void unpack(const uint8_t* bytes, int shift, int8_t* __restrict q) {
    for (int i = 0; i < kSize; ++i) {
        q[i] = static_cast<int8_t>(bytes[i] >> shift & ((1 << kBits) - 1));
    }
}

// Unpacks a 4-bit block.
void unpack_q4(const uint8_t* qs, int8_t* q) {
    unpack<16, 4>(qs, 0, q);
    unpack<16, 4>(qs, 4, q + 16);
}

constexpr std::array<uint32_t, 32> kBitMasks = [] {
    std::array<uint32_t, 32> bits{};
    for (int i = 0; i < 32; ++i) {
        bits[i] = 1u << i;
    }
    return bits;
}();

// Unpacks a 5-bit block.
void unpack_q5(const uint8_t* qh, const uint8_t* qs, int8_t* q) {
    unpack_q4(qs, q);
    uint32_t high;
    std::memcpy(&high, qh, sizeof high);
    for (int j = 0; j < 32; ++j) {
        q[j] = static_cast<int8_t>(q[j] | ((high & kBitMasks[j]) != 0 ? 16 : 0));
    }
}

template <int kSize>
void subtract(int zero, int8_t* q) {
    for (int i = 0; i < kSize; ++i) {
        q[i] = static_cast<int8_t>(q[i] - zero);
    }
}

void dequantize_block(const BlockQ8_0& b, float* out) {
    scale_codes<32>(b.qs, half_to_float(b.d), 0, out);
}

void dequantize_block(const BlockQ4_0& b, float* out) {
    int8_t q[32];
    unpack_q4(b.qs, q);
    subtract<32>(8, q);
    scale_codes<32>(q, half_to_float(b.d), 0, out);
}

void dequantize_block(const BlockQ4_1& b, float* out) {
    int8_t q[32];
    unpack_q4(b.qs, q);
    scale_codes<32>(q, half_to_float(b.d), -half_to_float(b.m), out);
}

void dequantize_block(const BlockQ5_0& b, float* out) {
    int8_t q[32];
    unpack_q5(b.qh, b.qs, q);
    subtract<32>(16, q);
    scale_codes<32>(q, half_to_float(b.d), 0, out);
}

void dequantize_block(const BlockQ5_1& b, float* out) {
    int8_t q[32];
    unpack_q5(b.qh, b.qs, q);
    scale_codes<32>(q, half_to_float(b.d), -half_to_float(b.m), out);
}

// Unpacks the low 2 bits of Q2_K and Q3_K.
void unpack_q2(const uint8_t* qs, int8_t* q) {
    for (int i = 0; i < 8; ++i) {
        unpack<32, 2>(qs + i / 4 * 32, i % 4 * 2, q + 32 * i);
    }
}

void dequantize_block(const BlockQ2_K& b, float* out) {
    const float d = half_to_float(b.d);
    const float dmin = half_to_float(b.dmin);
    int8_t q[kSuperBlock];
    unpack_q2(b.qs, q);
    for (int sub = 0; sub < 16; ++sub) {
        const uint8_t pair = b.scales[sub];
        scale_codes<16>(q + 16 * sub, d * static_cast<float>(pair & 15), dmin * static_cast<float>(pair >> 4),
                        out + 16 * sub);
    }
}

// Adds bit i of byte l, as bit kTo of element 32 i + l.
template <int kTo>
void add_high_bits(const uint8_t* bytes, int8_t* q) {
    for (int i = 0; i < 8; ++i) {
        for (int l = 0; l < 32; ++l) {
            q[32 * i + l] = static_cast<int8_t>(q[32 * i + l] | (bytes[l] >> i & 1) << kTo);
        }
    }
}

void dequantize_block(const BlockQ3_K& b, float* out) {
    const float d = half_to_float(b.d);
    int8_t q[kSuperBlock];
    unpack_q2(b.qs, q);
    add_high_bits<2>(b.hmask, q);
    subtract<kSuperBlock>(4, q);
    for (int sub = 0; sub < 16; ++sub) {
        scale_codes<16>(q + 16 * sub, d * static_cast<float>(get_scale_q3_k(sub, b.scales)), 0, out + 16 * sub);
    }
}

// Unpacks the low 4 bits of Q4_K and Q5_K.
void unpack_q4_k(const uint8_t* qs, int8_t* q) {
    for (int i = 0; i < 8; ++i) {
        unpack<32, 4>(qs + i / 2 * 32, i % 2 * 4, q + 32 * i);
    }
}

// Q4_K and Q5_K from their codes.
template <class Block>
void scale_pairs(const Block& b, const int8_t* q, float* out) {
    const float d = half_to_float(b.d);
    const float dmin = half_to_float(b.dmin);
    for (int sub = 0; sub < 8; ++sub) {
        uint8_t sc;
        uint8_t m;
        get_scale_min_k4(sub, b.scales, sc, m);
        scale_codes<32>(q + 32 * sub, d * static_cast<float>(sc), dmin * static_cast<float>(m), out + 32 * sub);
    }
}

void dequantize_block(const BlockQ4_K& b, float* out) {
    int8_t q[kSuperBlock];
    unpack_q4_k(b.qs, q);
    scale_pairs(b, q, out);
}

void dequantize_block(const BlockQ5_K& b, float* out) {
    int8_t q[kSuperBlock];
    unpack_q4_k(b.qs, q);
    add_high_bits<4>(b.qh, q);
    scale_pairs(b, q, out);
}

void dequantize_block(const BlockQ6_K& b, float* out) {
    const float d = half_to_float(b.d);
    int8_t q[kSuperBlock];
    for (int i = 0; i < 8; ++i) {
        const int half = i / 4;
        int8_t high[32];
        unpack<32, 4>(b.ql + half * 64 + i % 2 * 32, i % 4 / 2 * 4, q + 32 * i);
        unpack<32, 2>(b.qh + half * 32, i % 4 * 2, high);
        for (int l = 0; l < 32; ++l) {
            q[32 * i + l] = static_cast<int8_t>((q[32 * i + l] | high[l] << 4) - 32);
        }
    }
    for (int sub = 0; sub < 16; ++sub) {
        scale_codes<16>(q + 16 * sub, d * static_cast<float>(b.scales[sub]), 0, out + 16 * sub);
    }
}

// half_to_float in operations that compilers vectorize.
float wide_half(half_t h) {
    const uint32_t magnitude = h & 0x7fffu;
    const uint32_t not_finite = magnitude < 0x7c00u ? 0u : 0x7f800000u;
    const uint32_t value = bits_as<uint32_t>(bits_as<float>(magnitude << 13) * 0x1p112f);
    return bits_as<float>(value | not_finite | static_cast<uint32_t>(h & 0x8000u) << 16);
}

template <class Block>
void dequantize_blocks(const void* blocks, float* out, int64_t n, int block_elements) {
    const Block* b = static_cast<const Block*>(blocks);
    for (int64_t i = 0; i < n / block_elements; ++i) {
        dequantize_block(b[i], out + i * block_elements);
    }
}

}  // namespace

void dequantize_row(WeightType type, const void* blocks, float* out, int64_t n) {
    switch (type) {
    case WeightType::F32:
        if (n > 0) {
            std::memcpy(out, blocks, static_cast<size_t>(n) * sizeof(float));
        }
        return;
    case WeightType::F16: {
        const uint8_t* bytes = static_cast<const uint8_t*>(blocks);
        for (int64_t i = 0; i < n; ++i) {
            half_t h;
            std::memcpy(&h, bytes + i * 2, sizeof(h));
            out[i] = wide_half(h);
        }
        return;
    }
    case WeightType::BF16: {
        const uint8_t* bytes = static_cast<const uint8_t*>(blocks);
        for (int64_t i = 0; i < n; ++i) {
            uint16_t bits;
            std::memcpy(&bits, bytes + i * 2, sizeof(bits));
            out[i] = bf16_to_float(bits);
        }
        return;
    }
    case WeightType::Q4_0:
        return dequantize_blocks<BlockQ4_0>(blocks, out, n, kBlock);
    case WeightType::Q4_1:
        return dequantize_blocks<BlockQ4_1>(blocks, out, n, kBlock);
    case WeightType::Q5_0:
        return dequantize_blocks<BlockQ5_0>(blocks, out, n, kBlock);
    case WeightType::Q5_1:
        return dequantize_blocks<BlockQ5_1>(blocks, out, n, kBlock);
    case WeightType::Q8_0:
        return dequantize_blocks<BlockQ8_0>(blocks, out, n, kBlock);
    case WeightType::Q2_K:
        return dequantize_blocks<BlockQ2_K>(blocks, out, n, kSuperBlock);
    case WeightType::Q3_K:
        return dequantize_blocks<BlockQ3_K>(blocks, out, n, kSuperBlock);
    case WeightType::Q4_K:
        return dequantize_blocks<BlockQ4_K>(blocks, out, n, kSuperBlock);
    case WeightType::Q5_K:
        return dequantize_blocks<BlockQ5_K>(blocks, out, n, kSuperBlock);
    case WeightType::Q6_K:
        return dequantize_blocks<BlockQ6_K>(blocks, out, n, kSuperBlock);
    }
    LK_FAIL(LK_UNSUPPORTED, "weight type %u is not supported", static_cast<unsigned>(type));
}

}  // namespace lk
