#include "quant/blocks.h"

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

namespace {

// Code of element j (0..31) of a 5-bit block, 0..31.
int q5(const uint8_t* qh, const uint8_t* qs, int j) {
    const int low = j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
    const int high = (qh[j / 8] >> (j % 8)) & 1;
    return low | (high << 4);
}

// Code of element j (0..31) of a 4-bit block, 0..15.
int q4(const uint8_t* qs, int j) {
    return j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
}

void dequantize_block(const BlockQ8_0& b, float* out) {
    const float d = half_to_float(b.d);
    for (int j = 0; j < kBlock; ++j) {
        out[j] = static_cast<float>(b.qs[j]) * d;
    }
}

void dequantize_block(const BlockQ4_0& b, float* out) {
    const float d = half_to_float(b.d);
    for (int j = 0; j < kBlock; ++j) {
        out[j] = static_cast<float>(q4(b.qs, j) - 8) * d;
    }
}

void dequantize_block(const BlockQ4_1& b, float* out) {
    const float d = half_to_float(b.d);
    const float m = half_to_float(b.m);
    for (int j = 0; j < kBlock; ++j) {
        out[j] = static_cast<float>(q4(b.qs, j)) * d + m;
    }
}

void dequantize_block(const BlockQ5_0& b, float* out) {
    const float d = half_to_float(b.d);
    for (int j = 0; j < kBlock; ++j) {
        out[j] = static_cast<float>(q5(b.qh, b.qs, j) - 16) * d;
    }
}

void dequantize_block(const BlockQ5_1& b, float* out) {
    const float d = half_to_float(b.d);
    const float m = half_to_float(b.m);
    for (int j = 0; j < kBlock; ++j) {
        out[j] = static_cast<float>(q5(b.qh, b.qs, j)) * d + m;
    }
}

// Low 2 bits of element i (0..255) of Q2_K and Q3_K.
int q2(const uint8_t* qs, int i) {
    return (qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

void dequantize_block(const BlockQ2_K& b, float* out) {
    const float d = half_to_float(b.d);
    const float dmin = half_to_float(b.dmin);
    for (int i = 0; i < kSuperBlock; ++i) {
        const uint8_t pair = b.scales[i / 16];
        out[i] =
            d * static_cast<float>(pair & 15) * static_cast<float>(q2(b.qs, i)) - dmin * static_cast<float>(pair >> 4);
    }
}

void dequantize_block(const BlockQ3_K& b, float* out) {
    const float d = half_to_float(b.d);
    for (int i = 0; i < kSuperBlock; ++i) {
        const int high = (b.hmask[i % 32] >> (i / 32)) & 1;
        out[i] =
            d * static_cast<float>(get_scale_q3_k(i / 16, b.scales)) * static_cast<float>(q2(b.qs, i) + 4 * high - 4);
    }
}

// Q4_K and Q5_K. code(i): the code of element i.
template <class Block, class Code>
void dequantize_pairs(const Block& b, float* out, Code code) {
    const float d = half_to_float(b.d);
    const float dmin = half_to_float(b.dmin);
    for (int sub = 0; sub < 8; ++sub) {
        uint8_t sc;
        uint8_t m;
        get_scale_min_k4(sub, b.scales, sc, m);
        const float scale = d * static_cast<float>(sc);
        const float minimum = dmin * static_cast<float>(m);
        for (int i = sub * 32; i < sub * 32 + 32; ++i) {
            out[i] = scale * static_cast<float>(code(i)) - minimum;
        }
    }
}

// Low 4 bits of element i (0..255) of Q4_K and Q5_K.
int q4_of_64(const uint8_t* qs, int i) {
    return (qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15;
}

void dequantize_block(const BlockQ4_K& b, float* out) {
    dequantize_pairs(b, out, [&](int i) { return q4_of_64(b.qs, i); });
}

void dequantize_block(const BlockQ5_K& b, float* out) {
    dequantize_pairs(b, out, [&](int i) { return q4_of_64(b.qs, i) | ((b.qh[i % 32] >> (i / 32)) & 1) << 4; });
}

void dequantize_block(const BlockQ6_K& b, float* out) {
    const float d = half_to_float(b.d);
    for (int half = 0; half < 2; ++half) {
        const uint8_t* ql = b.ql + half * 64;
        const uint8_t* qh = b.qh + half * 32;
        for (int quarter = 0; quarter < 4; ++quarter) {  // 32 elements at the same bits of ql and qh
            const int first = half * 128 + quarter * 32;
            for (int l = 0; l < 32; ++l) {
                const int low = (ql[quarter % 2 * 32 + l] >> (quarter / 2 * 4)) & 15;
                const int high = (qh[l] >> (quarter * 2)) & 3;
                const int q = (low | (high << 4)) - 32;
                const float scale = d * static_cast<float>(b.scales[(first + l) / 16]);
                out[first + l] = scale * static_cast<float>(q);
            }
        }
    }
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
            out[i] = half_to_float(h);
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
