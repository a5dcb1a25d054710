// Every kernel table against the portable one, and the portable one against formulas in double.
#include "backend/cpu/kernels.h"
#include "support/environment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "kv/codec/stock_blocks.h"
#include "support/kernel_tables.h"
#include "support/kv_helpers.h"
#include "support/weight_rows.h"

namespace lk {

using namespace kv;

namespace {

// 0, 1/4, 2/4, ...
std::vector<float> ramp(int n) {
    std::vector<float> x(n);
    for (int i = 0; i < n; ++i) {
        x[i] = 0.25f * static_cast<float>(i);
    }
    return x;
}

constexpr int kHeadSizes[] = {64, 80, 96, 128, 256};

using cpu::Kernels;
using cpu::QuantizedRow;
using test::Activations;
using test::KernelTables;

TEST_F(KernelTables, QuantizedActivationsAreTheSameEverywhere) {
    std::vector<float> x = draw(2048, 3);
    std::fill_n(x.begin() + 256, 256, 0.0f);
    x[600] = 1e4f;
    x[1000] = -1e-6f;
    const Activations expected(portable_, x, 512);
    for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_LE(std::fabs(x[i] - expected.d[i / 32] * expected.q[i]), 0.57f * expected.d[i / 32] + 1e-12f) << i;
        ASSERT_LE(std::fabs(x[i] - expected.super_d[i / 256] * expected.super_q[i]), 0.51f * expected.super_d[i / 256]);
    }
    for (const Kernels* kernels : test::kernel_tables()) {
        const Activations actual(*kernels, x, 512);
        EXPECT_EQ(actual.q, expected.q);
        EXPECT_EQ(actual.d, expected.d);
        EXPECT_EQ(actual.sum, expected.sum);
        EXPECT_EQ(actual.q_sum, expected.q_sum);
        EXPECT_EQ(actual.super_q, expected.super_q);
        EXPECT_EQ(actual.super_d, expected.super_d);
        EXPECT_EQ(actual.super_sums, expected.super_sums);
    }
}

// Matmul of weight rows [3, 42) of 45 with several numbers of tokens, against dot products in double.
void check_matmul(WeightType type, const std::vector<uint8_t>& bytes, int n, const Activations& a,
                  double tolerance = 2e-6) {
    constexpr int kRows = 45;
    const Tensor w{type, bytes.data(), n, kRows, bytes.size() / kRows};
    const int n_tokens = static_cast<int>(a.rows.size());
    std::vector<float> weights(static_cast<size_t>(kRows) * n);
    for (int r = 0; r < kRows; ++r) {
        dequantize_row(type, w.data + r * w.row_bytes, &weights[static_cast<size_t>(r) * n], n);
    }
    for (const Kernels* kernels : test::kernel_tables()) {
        SCOPED_TRACE(kernels->name);
        std::vector<float> y(n_tokens * kRows, -7.0f);
        kernels->matmul(w, 3, 42, a.rows.data(), n_tokens, y.data(), kRows);
        for (int i = 0; i < n_tokens * kRows; ++i) {
            const int r = i % kRows;
            if (r < 3 || r >= 42) {
                ASSERT_EQ(y[i], -7.0f) << "rows outside the range are not written";
                continue;
            }
            const float* row = &weights[static_cast<size_t>(r) * n];
            const QuantizedRow& x = a.rows[i / kRows];
            const auto form = lk::cpu::activation_form(type);
            double as_given = 0;  // with the format's quantized activations
            double plain = 0;     // with the original activations
            double magnitude = 0;
            double rounding = 0;
            for (int c = 0; c < n; ++c) {
                const double step = form == cpu::ActivationForm::plain   ? x.plain.d[c / 32]
                                    : form == cpu::ActivationForm::super ? x.super.d[c / 256]
                                                                         : 0.0;
                const double value = form == cpu::ActivationForm::plain   ? step * x.plain.q[c]
                                     : form == cpu::ActivationForm::super ? step * x.super.q[c]
                                                                          : x.x[c];
                as_given += row[c] * value;
                plain += static_cast<double>(row[c]) * x.x[c];
                magnitude += std::fabs(row[c] * value);
                rounding += std::fabs(row[c]) * 0.57 * step;
            }
            // Blocks with a minimum use sums of activations rounded to half, a relative error of 2^-11 per block.
            const bool rounds_sums = type == WeightType::Q4_1 || type == WeightType::Q5_1;
            ASSERT_NEAR(y[i], as_given, (rounds_sums ? 1e-3 : tolerance) * (magnitude + 1)) << i;
            ASSERT_NEAR(y[i], plain, rounding + 1e-3 * (magnitude + 1)) << i;
        }
    }
}

// Numbers of tokens and rows below, at and above whole tiles; rows longer than a tile.
TEST_F(KernelTables, Matmul) {
    for (const WeightType type : test::kWeightTypes) {
        const WeightTypeTraits& traits = *weight_type_traits(type);
        SCOPED_TRACE(traits.name);
        const int short_row = traits.block_elements == 1 ? 77 : traits.block_elements == 32 ? 96 : 512;
        const int long_row = traits.block_elements == 1 ? 1101 : 2048 + static_cast<int>(traits.block_elements);
        for (const int n : {short_row, long_row}) {
            const std::vector<uint8_t> bytes = test::draw_weights(type, int64_t{45} * n, random_);
            for (const int n_tokens : {1, 3, 4, 9, 13, 23}) {
                if (n == short_row || n_tokens == 9) {
                    check_matmul(type, bytes, n, Activations(portable_, draw(static_cast<size_t>(n_tokens) * n), n));
                }
            }
        }
    }
}

// Largest codes times largest activations: 16-bit sums must not saturate.
TEST_F(KernelTables, MatmulOfExtremeCodes) {
    for (const WeightType type : test::kWeightTypes) {
        const WeightTypeTraits& traits = *weight_type_traits(type);
        if (traits.block_elements == 1) {
            continue;
        }
        SCOPED_TRACE(traits.name);
        constexpr int kCols = 256;
        for (const int byte : {0x00, 0x7f, 0x80, 0xff}) {
            std::vector<uint8_t> bytes(45 * kCols / traits.block_elements * traits.block_bytes, byte);
            test::set_scales(type, bytes, random_);
            for (const float sign : {1.0f, -1.0f}) {
                check_matmul(type, bytes, kCols, Activations(portable_, std::vector<float>(17 * kCols, sign), kCols),
                             1e-5);  // equal terms, equal rounding
            }
        }
    }
}

TEST_F(KernelTables, Elementwise) {
    for (const int n : {1, 7, 8, 33, 200}) {
        const std::vector<float> x = draw(n, 4);
        const std::vector<float> y = draw(n);
        double square = 0;
        double mean = 0;
        double magnitude = 0;
        for (int i = 0; i < n; ++i) {
            square += static_cast<double>(x[i]) * x[i];
            mean += static_cast<double>(x[i]) / n;
            magnitude += std::fabs(x[i]);
        }
        for (const Kernels* kernels : test::kernel_tables()) {
            SCOPED_TRACE(format("%s, n %d", kernels->name, n));
            std::vector<float> norm(n);
            kernels->rms_norm(x.data(), y.data(), 1e-5f, n, norm.data());
            std::vector<float> centred(n);
            kernels->layer_norm(x.data(), y.data(), ramp(n).data(), 1e-5f, n, centred.data());
            std::vector<float> gelu = x;
            kernels->gelu(gelu.data(), n);
            std::vector<float> gate = x;
            kernels->swiglu(gate.data(), y.data(), n);
            std::vector<float> sum = x;
            kernels->add(sum.data(), y.data(), n);
            std::vector<float> scaled = x;
            kernels->scale(scaled.data(), n, 0.37f);
            for (int i = 0; i < n; ++i) {
                const double expected = x[i] / std::sqrt(square / n + 1e-5) * y[i];
                ASSERT_NEAR(norm[i], expected, 1e-6 * std::fabs(expected));
                const double deviation = std::sqrt(square / n - mean * mean + 1e-5);
                ASSERT_NEAR(centred[i], (x[i] - mean) / deviation * y[i] + 0.25 * i, 1e-4 + 1e-6 * i);
                ASSERT_NEAR(gelu[i], 0.5 * x[i] * (1 + std::erf(x[i] / std::sqrt(2.0))), 1e-6 * (1 + std::fabs(x[i])));
                const double silu = x[i] / (1 + std::exp(-static_cast<double>(x[i]))) * y[i];
                ASSERT_NEAR(gate[i], silu, 1e-6 * std::fabs(silu));
                ASSERT_EQ(sum[i], x[i] + y[i]);
                ASSERT_EQ(scaled[i], x[i] * 0.37f);
            }
            ASSERT_NEAR(kernels->sum(x.data(), n), mean * n, 1e-6 * magnitude);
            ASSERT_EQ(kernels->max(x.data(), n), *std::max_element(x.begin(), x.end()));
        }
    }
}

TEST_F(KernelTables, FarGatesSaturate) {
    for (const Kernels* kernels : test::kernel_tables()) {
        std::vector<float> gate{200, -200, 90, -90, 88, -88, 0, 1e30f, -1e30f};
        const std::vector<float> x = gate;
        kernels->swiglu(gate.data(), std::vector<float>(9, 1.0f).data(), 9);
        for (int i = 0; i < 9; ++i) {
            ASSERT_NEAR(gate[i], std::max(x[i], 0.0f), 1e-6f * std::fabs(x[i]) + 1e-30f)
                << kernels->name << " " << x[i];
        }
    }
}

TEST_F(KernelTables, SoftmaxPart) {
    for (const int n : {1, 5, 8, 100, 513}) {
        std::vector<float> scores(n);
        for (int i = 0; i < n; ++i) {
            scores[i] = 3.0f - 86.0f * static_cast<float>(i) / static_cast<float>(n);
        }
        scores[n / 2] = -400;
        for (const Kernels* kernels : test::kernel_tables()) {
            std::vector<float> p = scores;
            const float sum = kernels->softmax_part(p.data(), n, 3);
            double total = 0;
            for (int i = 0; i < n; ++i) {
                const double expected = std::exp(static_cast<double>(scores[i]) - 3);
                ASSERT_NEAR(p[i], expected, 3e-7 * expected + 1e-37) << kernels->name << " " << scores[i];
                total += p[i];
            }
            ASSERT_NEAR(sum, total, 1e-6 * total);
        }
    }
}

TEST_F(KernelTables, HalfRow) {
    std::vector<float> x = draw(1003, 100);
    const float special[] = {0.0f,   -0.0f,    65504,    65519.9f,        65520, 1e30f,
                             -1e30f, 0x1p-24f, 0x1p-25f, 1.5f * 0x1p-25f, 6e-5f};
    std::copy(std::begin(special), std::end(special), x.begin());
    for (const Kernels* kernels : test::kernel_tables()) {
        std::vector<half_t> h(x.size());
        kernels->half_row(x.data(), static_cast<int64_t>(x.size()), h.data());
        for (size_t i = 0; i < x.size(); ++i) {
            ASSERT_EQ(h[i], float_to_half(x[i])) << kernels->name << " " << x[i];
        }
    }
}

// Halves are read exactly, and floats at and around them are rounded as float_to_half does.
TEST_F(KernelTables, EveryHalf) {
    constexpr int kRow = 64;
    constexpr int kHalves = 1 << 16;
    std::vector<half_t> halves(kHalves);
    std::iota(halves.begin(), halves.end(), half_t{0});
    for (const Kernels* kernels : test::kernel_tables()) {
        std::vector<float> values(kHalves);
        for (int i = 0; i < kHalves; i += kRow) {
            const float one = 1;
            kernels->accumulate_exact(halves.data() + i, 1, kRow, &one, 1, 1, values.data() + i);
        }
        for (const float direction : {0.0f, -INFINITY, INFINITY}) {
            std::vector<float> near(kHalves);
            std::transform(values.begin(), values.end(), near.begin(),
                           [&](float x) { return direction == 0 ? x : std::nextafter(x * 1.00024f, direction); });
            std::vector<half_t> rounded(kHalves);
            kernels->half_row(near.data(), kHalves, rounded.data());
            for (int i = 0; i < kHalves; ++i) {
                const float expected = half_to_float(halves[i]);
                if (std::isnan(expected)) {
                    ASSERT_TRUE(std::isnan(values[i]) && std::isnan(half_to_float(rounded[i]))) << kernels->name;
                    continue;
                }
                ASSERT_EQ(values[i], expected) << kernels->name << ", half " << i;
                ASSERT_EQ(rounded[i], float_to_half(near[i])) << kernels->name << ", " << near[i];
            }
        }
    }
}

TEST_F(KernelTables, ExactRows) {
    constexpr int kStride = 40;
    for (const int d : kHeadSizes) {
        for (const int n_tokens : {1, 3, 4, 17, 33}) {
            for (const int n_rows : {1, 2, 5}) {
                const std::vector<half_t> rows = draw_halves(static_cast<size_t>(n_tokens) * d);
                std::vector<float> floats(rows.size());
                std::transform(rows.begin(), rows.end(), floats.begin(), half_to_float);
                const std::vector<float> q = draw(static_cast<size_t>(n_rows) * d);
                const std::vector<float> p = draw(n_rows * kStride);
                for (const Kernels* kernels : test::kernel_tables()) {
                    SCOPED_TRACE(format("%s, D %d, tokens %d, rows %d", kernels->name, d, n_tokens, n_rows));
                    std::vector<float> scores(n_rows * kStride, -7.0f);
                    kernels->score_exact(rows.data(), n_tokens, d, q.data(), n_rows, scores.data(), kStride);
                    std::vector<float> acc(q);
                    kernels->accumulate_exact(rows.data(), n_tokens, d, p.data(), kStride, n_rows, acc.data());
                    std::vector<float> float_scores(n_rows * kStride, -7.0f);
                    kernels->score_floats(floats.data(), n_tokens, d, q.data(), n_rows, float_scores.data(), kStride);
                    std::vector<float> float_acc(q);
                    kernels->accumulate_floats(floats.data(), n_tokens, d, p.data(), kStride, n_rows, float_acc.data());
                    for (int r = 0; r < n_rows; ++r) {
                        for (int t = 0; t < kStride; ++t) {
                            double dot = t < n_tokens ? 0 : -7;
                            for (int c = 0; c < d && t < n_tokens; ++c) {
                                dot += static_cast<double>(q[r * d + c]) * half_to_float(rows[t * d + c]);
                            }
                            ASSERT_NEAR(scores[r * kStride + t], dot, 2e-5 + 1e-6 * std::fabs(dot));
                            ASSERT_NEAR(float_scores[r * kStride + t], dot, 2e-5 + 1e-6 * std::fabs(dot));
                        }
                        for (int c = 0; c < d; ++c) {
                            double sum = q[r * d + c];
                            for (int t = 0; t < n_tokens; ++t) {
                                sum += static_cast<double>(p[r * kStride + t]) * half_to_float(rows[t * d + c]);
                            }
                            ASSERT_NEAR(acc[r * d + c], sum, 2e-5);
                            ASSERT_NEAR(float_acc[r * d + c], sum, 2e-5);
                        }
                    }
                }
            }
        }
    }
}

TEST_F(KernelTables, HalfBlocks) {
    constexpr int kElements = 224;
    for (const lk_cache_type type : test::kBlockTypes) {
        std::vector<uint8_t> blocks(kElements / 32 * stock_format(type).block_bytes);
        encode_blocks(type, draw(kElements).data(), kElements, blocks.data());
        std::vector<float> expected(kElements);
        decode_blocks(type, blocks.data(), expected.data(), kElements);
        for (const Kernels* kernels : test::kernel_tables()) {
            std::vector<half_t> out(kElements);
            kernels->half_blocks(type, blocks.data(), kElements, out.data());
            for (int i = 0; i < kElements; ++i) {
                ASSERT_EQ(out[i], float_to_half(expected[i])) << kernels->name << ", " << lk_cache_type_name(type);
            }
        }
    }
}

class KernelChoice : public ::testing::Test {
protected:
    void TearDown() override { test::unset_environment("LLAMA_KIVI_CPU"); }
};

TEST_F(KernelChoice, EachByName) {
    for (const cpu::NamedKernels& table : cpu::available_kernels()) {
        test::set_environment("LLAMA_KIVI_CPU", table.id);
        EXPECT_EQ(&cpu::select_kernels(), table.kernels) << table.id;
    }
    test::unset_environment("LLAMA_KIVI_CPU");
    EXPECT_EQ(&cpu::select_kernels(), cpu::available_kernels().front().kernels);
}

TEST_F(KernelChoice, UnknownNameIsAnErrorThatNamesIt) {
    test::set_environment("LLAMA_KIVI_CPU", "sse9");
    try {
        cpu::select_kernels();
        FAIL() << "accepted";
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("\"sse9\""), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find("portable"), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace lk
