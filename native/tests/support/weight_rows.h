// Random weight rows and activations for matmul tests.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/kernels.h"

namespace lk::test {

inline constexpr WeightType kWeightTypes[] = {WeightType::F32,  WeightType::F16,  WeightType::BF16, WeightType::Q4_0,
                                              WeightType::Q4_1, WeightType::Q5_0, WeightType::Q5_1, WeightType::Q8_0,
                                              WeightType::Q2_K, WeightType::Q3_K, WeightType::Q4_K, WeightType::Q5_K,
                                              WeightType::Q6_K};

// Normally distributed values from a fixed seed.
class NormalValues {
protected:
    explicit NormalValues(unsigned seed) : random_(seed) {}

    std::vector<float> draw(size_t n, float spread = 1) {
        std::vector<float> x(n);
        for (float& v : x) {
            v = spread * normal_(random_);
        }
        return x;
    }

    std::mt19937 random_;
    std::normal_distribution<float> normal_;
};

// Replaces the half scales of blocks by random ones of about 1/50, and floats by random ones of about 1.
inline void set_scales(WeightType type, std::vector<uint8_t>& bytes, std::mt19937& random) {
    std::normal_distribution<float> normal;
    const WeightTypeTraits& traits = *weight_type_traits(type);
    const auto set = [&](size_t at, float value) {
        const half_t h = float_to_half(value);
        std::memcpy(&bytes[at], &h, sizeof h);
    };
    for (size_t at = 0; at < bytes.size(); at += traits.block_bytes) {
        switch (type) {
        case WeightType::F32: {
            const float x = normal(random);
            std::memcpy(&bytes[at], &x, sizeof x);
            break;
        }
        case WeightType::F16:
            set(at, normal(random));
            break;
        case WeightType::BF16: {
            const uint32_t bits = std::bit_cast<uint32_t>(normal(random)) >> 16;
            std::memcpy(&bytes[at], &bits, 2);
            break;
        }
        case WeightType::Q6_K:
            set(at + offsetof(BlockQ6_K, d), 0.02f * normal(random));
            break;
        case WeightType::Q3_K:
            set(at + offsetof(BlockQ3_K, d), 0.02f * normal(random));
            break;
        case WeightType::Q2_K:
            set(at + offsetof(BlockQ2_K, d), 0.02f * normal(random));
            set(at + offsetof(BlockQ2_K, dmin), 0.02f * normal(random));
            break;
        case WeightType::Q4_1:
        case WeightType::Q5_1:
        case WeightType::Q4_K:
        case WeightType::Q5_K:
            set(at + 2, 0.02f * normal(random));  // m, dmin
            [[fallthrough]];
        default:
            set(at, 0.02f * normal(random));
        }
    }
}

// Random blocks of n elements.
inline std::vector<uint8_t> draw_weights(WeightType type, int64_t n, std::mt19937& random) {
    const WeightTypeTraits& traits = *weight_type_traits(type);
    std::vector<uint8_t> bytes(n / traits.block_elements * traits.block_bytes);
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<uint8_t>(random()); });
    set_scales(type, bytes, random);
    return bytes;
}

// Activations in every form.
struct Activations {
    Activations(const cpu::Kernels& kernels, const std::vector<float>& values, int n)
        : x(values),
          q(x.size()),
          super_q(x.size()),
          d(x.size() / 32),
          sum(d.size()),
          q_sum(d.size()),
          super_d(x.size() / 256),
          super_sums(x.size() / 16) {
        for (size_t at = 0; at < x.size(); at += n) {
            cpu::QuantizedRow row{};
            row.x = &x[at];
            if (n % 32 == 0) {
                kernels.quantize_plain(&x[at], n, &q[at], &d[at / 32], &sum[at / 32], &q_sum[at / 32]);
                row.plain = {&q[at], &d[at / 32], &sum[at / 32], &q_sum[at / 32]};
            }
            if (n % 256 == 0) {
                kernels.quantize_super(&x[at], n, &super_q[at], &super_d[at / 256], &super_sums[at / 16]);
                row.super = {&super_q[at], &super_d[at / 256], &super_sums[at / 16]};
            }
            rows.push_back(row);
        }
    }

    std::vector<float> x;
    std::vector<int8_t> q, super_q;
    std::vector<float> d, sum;
    std::vector<int32_t> q_sum;
    std::vector<float> super_d;
    std::vector<int16_t> super_sums;
    std::vector<cpu::QuantizedRow> rows;
};

}  // namespace lk::test
