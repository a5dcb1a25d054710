#include "quant/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/finite.h"

namespace lk {

namespace {

// Rounds to nearest, ties to even, for |x| < 2^22. Unlike nearbyint, compilers vectorize it on every target.
int nearest(float x) {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: one unit in the last place is 1
    return static_cast<int>(std::bit_cast<uint32_t>(x + kMagic) & 0x7fffff) - 0x400000;
}

int to_code(float x, int low, int high) {
    return std::clamp(nearest(std::clamp(x, -1000.0f, 1000.0f)), low, high);
}

float inverse_of(float x) {
    return finite_quotient(1.0f, x);
}

// Weights of the squared errors: larger for large elements, but never negligible for small ones.
void error_weights(const float* x, int n, float* w) {
    float square = 0;
    for (int i = 0; i < n; ++i) {
        square += x[i] * x[i];
    }
    const float typical = std::sqrt(square / static_cast<float>(n));
    for (int i = 0; i < n; ++i) {
        w[i] = typical + std::fabs(x[i]);
    }
}

// Fits x ~ d * code, low <= code <= high. Tries candidate ranges that map the largest element near the wider end of the
// code range, computes the least-squares d for the codes of each, and returns the d with the least weighted error.
float fit_scale(const float* x, const float* w, int n, int low, int high) {
    const float extreme = *std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    if (extreme == 0) {
        return 0;
    }
    float best = -1;
    float d = 0;
    for (int step = -9; step <= 9; ++step) {
        const float inverse = finite_quotient(static_cast<float>(low) + 0.1f * static_cast<float>(step), extreme);
        float xc = 0;
        float cc = 0;
        for (int i = 0; i < n; ++i) {
            const float c = static_cast<float>(to_code(x[i] * inverse, low, high));
            xc += w[i] * x[i] * c;
            cc += w[i] * c * c;
        }
        if (cc > 0 && xc * xc > best * cc) {  // the error is sum(w x^2) - xc^2 / cc
            best = xc * xc / cc;
            d = xc / cc;
        }
    }
    return d;
}

struct Line {
    float d, m;
};

// Fits x ~ d * code + m, 0 <= code <= high, d >= 0. Tries candidate ranges around [min, max], computes the
// least-squares d and m for the codes of each, and returns the pair with the least weighted error. not_above_zero:
// require m <= 0.
Line fit_line(const float* x, const float* w, int n, int high, bool not_above_zero) {
    float least = *std::min_element(x, x + n);
    const float most = *std::max_element(x, x + n);
    if (not_above_zero) {
        least = std::min(least, 0.0f);
    }
    if (most <= least) {
        return {0, least};
    }
    float w_sum = 0;
    float x_sum = 0;
    for (int i = 0; i < n; ++i) {
        w_sum += w[i];
        x_sum += w[i] * x[i];
    }
    Line best = {(most - least) / static_cast<float>(high), least};
    float best_gain = -1;
    for (int step = -10; step <= 10; ++step) {
        const float inverse = finite_quotient(static_cast<float>(high) + 0.1f * static_cast<float>(step), most - least);
        float c_sum = 0;
        float cc = 0;
        float xc = 0;
        for (int i = 0; i < n; ++i) {
            const float c = static_cast<float>(to_code((x[i] - least) * inverse, 0, high));
            c_sum += w[i] * c;
            cc += w[i] * c * c;
            xc += w[i] * x[i] * c;
        }
        const float determinant = w_sum * cc - c_sum * c_sum;
        if (determinant <= 0) {
            continue;
        }
        Line line = {(w_sum * xc - x_sum * c_sum) / determinant, (cc * x_sum - c_sum * xc) / determinant};
        if (not_above_zero && line.m > 0) {
            line = {xc / cc, 0};
        }
        const float gain = line.d * xc + line.m * x_sum;  // the error is sum(w x^2) - gain
        if (line.d > 0 && gain > best_gain) {
            best_gain = gain;
            best = line;
        }
    }
    return best;
}

void set_nibble(uint8_t* qs, int j, int code) {  // element j (0..31) of a plain block
    qs[j % 16] = static_cast<uint8_t>(j < 16 ? code : qs[j % 16] | code << 4);
}

void set_five(uint8_t* qh, uint8_t* qs, int j, int code) {
    set_nibble(qs, j, code & 15);
    qh[j / 8] = static_cast<uint8_t>(qh[j / 8] | (code >> 4) << (j % 8));
}

void quantize_block(const float* x, BlockQ8_0& b) {
    float largest = 0;
    for (int j = 0; j < kBlock; ++j) {
        largest = std::max(largest, std::fabs(x[j]));
    }
    b.d = float_to_half(largest / 127);
    const float inverse = inverse_of(largest / 127);
    for (int j = 0; j < kBlock; ++j) {
        b.qs[j] = static_cast<int8_t>(to_code(x[j] * inverse, -127, 127));
    }
}

// Quantizes a plain block as x ~ d * code, low <= code <= high. Calls set(j, code - low) and returns d.
template <class Set>
half_t quantize_scaled(const float* x, int low, int high, Set set) {
    float w[kBlock];
    error_weights(x, kBlock, w);
    const half_t d = float_to_half(fit_scale(x, w, kBlock, low, high));
    const float inverse = inverse_of(half_to_float(d));
    for (int j = 0; j < kBlock; ++j) {
        set(j, to_code(x[j] * inverse, low, high) - low);
    }
    return d;
}

// Quantizes a plain block as x ~ d * code + m, 0 <= code <= high. Calls set(j, code).
template <class Set>
void quantize_line(const float* x, int high, half_t& d, half_t& m, Set set) {
    float w[kBlock];
    error_weights(x, kBlock, w);
    const Line line = fit_line(x, w, kBlock, high, false);
    d = float_to_half(line.d);
    m = float_to_half(line.m);
    const float inverse = inverse_of(half_to_float(d));
    for (int j = 0; j < kBlock; ++j) {
        set(j, to_code((x[j] - half_to_float(m)) * inverse, 0, high));
    }
}

void quantize_block(const float* x, BlockQ4_0& b) {
    b.d = quantize_scaled(x, -8, 7, [&](int j, int code) { set_nibble(b.qs, j, code); });
}

void quantize_block(const float* x, BlockQ5_0& b) {
    b.d = quantize_scaled(x, -16, 15, [&](int j, int code) { set_five(b.qh, b.qs, j, code); });
}

void quantize_block(const float* x, BlockQ4_1& b) {
    quantize_line(x, 15, b.d, b.m, [&](int j, int code) { set_nibble(b.qs, j, code); });
}

void quantize_block(const float* x, BlockQ5_1& b) {
    quantize_line(x, 31, b.d, b.m, [&](int j, int code) { set_five(b.qh, b.qs, j, code); });
}

// A super-block of kSubs lines. Each line's d and -m are integers 0..max_scale times the block's d and dmin.
template <int kSubs>
struct ScaledLines {
    half_t d, dmin;
    uint8_t scale[kSubs], minimum[kSubs];

    ScaledLines(const float* x, int high, int max_scale) {
        constexpr int kElements = kSuperBlock / kSubs;
        Line lines[kSubs];
        float most_d = 0;
        float most_m = 0;
        float w[kSuperBlock];
        error_weights(x, kSuperBlock, w);
        for (int i = 0; i < kSubs; ++i) {
            lines[i] = fit_line(x + i * kElements, w + i * kElements, kElements, high, true);
            most_d = std::max(most_d, lines[i].d);
            most_m = std::max(most_m, -lines[i].m);
        }
        d = float_to_half(most_d / static_cast<float>(max_scale));
        dmin = float_to_half(most_m / static_cast<float>(max_scale));
        for (int i = 0; i < kSubs; ++i) {
            scale[i] = static_cast<uint8_t>(to_code(lines[i].d * inverse_of(half_to_float(d)), 0, max_scale));
            minimum[i] = static_cast<uint8_t>(to_code(-lines[i].m * inverse_of(half_to_float(dmin)), 0, max_scale));
        }
    }

    // Calls set(i, code) for all elements.
    template <class Set>
    void codes(const float* x, int high, Set set) const {
        for (int i = 0; i < kSuperBlock; ++i) {
            const int sub = i / (kSuperBlock / kSubs);
            const float inverse = inverse_of(half_to_float(d) * static_cast<float>(scale[sub]));
            const float m = half_to_float(dmin) * static_cast<float>(minimum[sub]);
            set(i, to_code((x[i] + m) * inverse, 0, high));
        }
    }
};

void set_pair_k4(int j, uint8_t* scales, int sc, int m) {  // the inverse of get_scale_min_k4
    if (j < 4) {
        scales[j] = static_cast<uint8_t>(scales[j] | sc);
        scales[j + 4] = static_cast<uint8_t>(scales[j + 4] | m);
    } else {
        scales[j + 4] = static_cast<uint8_t>((sc & 15) | (m & 15) << 4);
        scales[j - 4] = static_cast<uint8_t>(scales[j - 4] | (sc >> 4) << 6);
        scales[j] = static_cast<uint8_t>(scales[j] | (m >> 4) << 6);
    }
}

template <class Block, class Set>
void quantize_pairs(const float* x, int high, Block& b, Set set) {
    const ScaledLines<8> lines(x, high, 63);
    b.d = lines.d;
    b.dmin = lines.dmin;
    for (int j = 0; j < 8; ++j) {
        set_pair_k4(j, b.scales, lines.scale[j], lines.minimum[j]);
    }
    lines.codes(x, high, set);
}

void set_nibble_of_64(uint8_t* qs, int i, int code) {
    uint8_t& byte = qs[i / 64 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte | code << (i / 32 % 2 * 4));
}

void set_two_bits(uint8_t* qs, int i, int code) {  // element i (0..255) of Q2_K and Q3_K
    uint8_t& byte = qs[i / 128 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte | code << (i % 128 / 32 * 2));
}

void quantize_block(const float* x, BlockQ4_K& b) {
    quantize_pairs(x, 15, b, [&](int i, int code) { set_nibble_of_64(b.qs, i, code); });
}

void quantize_block(const float* x, BlockQ5_K& b) {
    quantize_pairs(x, 31, b, [&](int i, int code) {
        set_nibble_of_64(b.qs, i, code & 15);
        b.qh[i % 32] = static_cast<uint8_t>(b.qh[i % 32] | (code >> 4) << (i / 32));
    });
}

void quantize_block(const float* x, BlockQ2_K& b) {
    const ScaledLines<16> lines(x, 3, 15);
    b.d = lines.d;
    b.dmin = lines.dmin;
    for (int j = 0; j < 16; ++j) {
        b.scales[j] = static_cast<uint8_t>(lines.scale[j] | lines.minimum[j] << 4);
    }
    lines.codes(x, 3, [&](int i, int code) { set_two_bits(b.qs, i, code); });
}

// Quantizes a super-block with 16 scales, integers low..high times the block's d. Calls set(i, code),
// code_low <= code <= code_high, and returns d.
template <class Set>
half_t quantize_signed(const float* x, int low, int high, int code_low, int code_high, int* scales, Set set) {
    float w[kSuperBlock];
    float fitted[16];
    error_weights(x, kSuperBlock, w);
    for (int j = 0; j < 16; ++j) {
        fitted[j] = fit_scale(x + j * 16, w + j * 16, 16, code_low, code_high);
    }
    const float extreme =
        *std::max_element(fitted, fitted + 16, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    const half_t d = float_to_half(extreme / static_cast<float>(low));
    const float inverse = inverse_of(half_to_float(d));
    for (int j = 0; j < 16; ++j) {
        scales[j] = to_code(fitted[j] * inverse, low, high);
        const float step = inverse_of(half_to_float(d) * static_cast<float>(scales[j]));
        for (int i = j * 16; i < j * 16 + 16; ++i) {
            set(i, to_code(x[i] * step, code_low, code_high));
        }
    }
    return d;
}

void quantize_block(const float* x, BlockQ3_K& b) {
    int scales[16];
    b.d = quantize_signed(x, -32, 31, -4, 3, scales, [&](int i, int code) {
        set_two_bits(b.qs, i, (code + 4) & 3);
        b.hmask[i % 32] = static_cast<uint8_t>(b.hmask[i % 32] | (code >= 0 ? 1 : 0) << (i / 32));
    });
    for (int j = 0; j < 16; ++j) {  // the inverse of get_scale_q3_k
        const int s = scales[j] + 32;
        b.scales[j % 8] = static_cast<uint8_t>(b.scales[j % 8] | (s & 15) << (j / 8 * 4));
        b.scales[8 + j % 4] = static_cast<uint8_t>(b.scales[8 + j % 4] | (s >> 4) << (j / 4 * 2));
    }
}

void quantize_block(const float* x, BlockQ6_K& b) {
    int scales[16];
    b.d = quantize_signed(x, -128, 127, -32, 31, scales, [&](int i, int code) {
        const int quarter = i % 128 / 32;
        uint8_t& low = b.ql[i / 128 * 64 + quarter % 2 * 32 + i % 32];
        uint8_t& high = b.qh[i / 128 * 32 + i % 32];
        low = static_cast<uint8_t>(low | ((code + 32) & 15) << (quarter / 2 * 4));
        high = static_cast<uint8_t>(high | ((code + 32) >> 4) << (quarter * 2));
    });
    std::copy(scales, scales + 16, b.scales);
}

template <class Block>
void quantize_blocks(const float* x, int64_t n, int block_elements, void* blocks) {
    uint8_t* out = static_cast<uint8_t*>(blocks);
    for (int64_t i = 0; i < n / block_elements; ++i) {
        Block block{};
        quantize_block(x + i * block_elements, block);
        std::memcpy(out + i * sizeof(Block), &block, sizeof(Block));
    }
}

// Rounds to nearest, ties to even.
uint16_t float_to_bf16(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class Convert>
void convert(const float* x, int64_t n, void* out, Convert to_bits) {
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = to_bits(x[i]);
        std::memcpy(static_cast<uint8_t*>(out) + i * 2, &bits, sizeof(bits));
    }
}

}  // namespace

void quantize_row(WeightType type, const float* x, int64_t n, void* blocks) {
    switch (type) {
    case WeightType::F32:
        std::memcpy(blocks, x, static_cast<size_t>(n) * sizeof(float));
        return;
    case WeightType::F16:
        return convert(x, n, blocks, [](float value) { return float_to_half(value); });
    case WeightType::BF16:
        return convert(x, n, blocks, float_to_bf16);
    case WeightType::Q4_0:
        return quantize_blocks<BlockQ4_0>(x, n, kBlock, blocks);
    case WeightType::Q4_1:
        return quantize_blocks<BlockQ4_1>(x, n, kBlock, blocks);
    case WeightType::Q5_0:
        return quantize_blocks<BlockQ5_0>(x, n, kBlock, blocks);
    case WeightType::Q5_1:
        return quantize_blocks<BlockQ5_1>(x, n, kBlock, blocks);
    case WeightType::Q8_0:
        return quantize_blocks<BlockQ8_0>(x, n, kBlock, blocks);
    case WeightType::Q2_K:
        return quantize_blocks<BlockQ2_K>(x, n, kSuperBlock, blocks);
    case WeightType::Q3_K:
        return quantize_blocks<BlockQ3_K>(x, n, kSuperBlock, blocks);
    case WeightType::Q4_K:
        return quantize_blocks<BlockQ4_K>(x, n, kSuperBlock, blocks);
    case WeightType::Q5_K:
        return quantize_blocks<BlockQ5_K>(x, n, kSuperBlock, blocks);
    case WeightType::Q6_K:
        return quantize_blocks<BlockQ6_K>(x, n, kSuperBlock, blocks);
    }
    LK_FAIL(LK_UNSUPPORTED, "weight type %u is not supported", static_cast<unsigned>(type));
}

int64_t find_unfit(WeightType type, const float* x, int64_t n) {
    constexpr float kMaxHalf = 65504.0f;
    const bool wide = type == WeightType::F32 || type == WeightType::BF16;
    for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(x[i]) || (!wide && std::fabs(x[i]) > kMaxHalf)) {
            return i;
        }
    }
    return -1;
}

}  // namespace lk
