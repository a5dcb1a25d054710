// Portable kernels over rows of floats: the softmax of scores, conversions to halves.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backend/cpu/kernels_portable.h"
#include "backend/cpu/simd_portable.h"
#include "kv/codec/cache_types.h"
#include "kv/codec/stock_blocks.h"
#include "quant/blocks.h"

namespace lk::cpu::portable {

namespace {

// exp(x) for x <= 88, relative error below 3e-7; underflows to 0 below -87. Method: see exp_ps in simd_avx2.h.
Floats exponential(Floats x) {
    constexpr float kLeast = -87.0f;
    constexpr float kMost = 88.0f;
    constexpr float kRounder = 0x1.8p23f + 127;
    const Ints tiny = x < kLeast;
    x = tiny ? Floats{} + kLeast : x;  // a NaN stays
    x = x > kMost ? Floats{} + kMost : x;
    const Floats biased = x * 1.44269504f + kRounder;
    const Floats n = biased - kRounder;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats e = Floats{} + 1.0f / 5040;
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
        e = e * r + c;
    }
    const Floats power = reinterpret_cast<Floats>(reinterpret_cast<Ints>(biased) << 23);
    return tiny ? Floats{} : e * power;
}

// Calls body(vector, number of its elements, index); the last vector may be partial, padded with `padding`.
template <class Body>
void for_vectors(const float* x, int n, float padding, const Body& body) {
    int i = 0;
    for (; i + kFloats <= n; i += kFloats) {
        body(load<Floats>(x + i), kFloats, i);
    }
    if (i < n) {
        float rest[kFloats] = {padding, padding, padding, padding};
        std::copy_n(x + i, n - i, rest);
        body(load<Floats>(rest), n - i, i);
    }
}

// float_to_half of each lane, in the low half of it.
Ints half_bits(Floats x) {
    const Ints bits = reinterpret_cast<Ints>(x);
    const Ints size = bits & 0x7fffffff;
    const Ints odd = (size >> 13) & 1;
    const Ints normal = (size - 0x38000000 + 0xfff + odd) >> 13;
    const Ints subnormal = reinterpret_cast<Ints>(reinterpret_cast<Floats>(size) + 0.5f) - 0x3f000000;
    Ints half = size < 0x38800000 ? subnormal : normal;
    half = size >= 0x477ff000 ? Ints{} + 0x7c00 : half;
    half = size > 0x7f800000 ? Ints{} + 0x7e00 : half;
    return half | ((bits >> 16) & 0x8000);
}

}  // namespace

float softmax_part(float* x, int n, float max) {
    Floats sum = {};
    for_vectors(x, n, -std::numeric_limits<float>::infinity(), [&](Floats scores, int count, int i) {
        const Floats p = exponential(scores - max);
        sum += p;
        std::memcpy(x + i, &p, count * sizeof(float));
    });
    return lane_sum(sum);
}

float max_of(const float* x, int n) {
    Floats most = Floats{} + x[0];
    for_vectors(x, n, x[0], [&](Floats v, int, int) { most = larger(most, v); });
    return lane_max(most);
}

float sum(const float* x, int n) {
    Floats total = {};
    for_vectors(x, n, 0.0f, [&](Floats v, int, int) { total += v; });
    return lane_sum(total);
}

void half_row(const float* x, int64_t n, half_t* out) {
    int64_t i = 0;
    for (; i + kFloats <= n; i += kFloats) {
        const Ints halves = half_bits(load<Floats>(x + i));
        for (int j = 0; j < kFloats; ++j) {
            out[i + j] = static_cast<half_t>(halves[j]);
        }
    }
    std::transform(x + i, x + n, out + i, float_to_half);
}

void half_blocks(lk_cache_type type, const uint8_t* blocks, int n, half_t* out) {
    const int block_bytes = kv::stock_format(type).block_bytes;
    float x[kBlock];
    for (int i = 0; i < n / kBlock; ++i) {
        kv::decode_blocks(type, blocks + static_cast<size_t>(i) * block_bytes, x, kBlock);
        half_row(x, kBlock, out + i * kBlock);
    }
}

}  // namespace lk::cpu::portable
