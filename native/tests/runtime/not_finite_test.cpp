// NaN and infinity in any weight, activation or input: on every kernel table, the call fails with LK_NUMERIC_ERROR, the
// message names the place, and sequences are unchanged.
#include <cfloat>
#include <functional>
#include <limits>

#include "backend/sampling.h"
#include "support/failed_call.h"
#include "support/kv_helpers.h"
#include "support/samplings.h"
#include "support/tiny_model.h"
#include "support/weight_rows.h"

namespace lk {
namespace {

using cpu::Kernels;
using test::Activations;
using test::LoadedModel;
using test::TableInUse;
using test::TestContext;
using test::TinyModel;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kBad[] = {kNan, kInfinity, -kInfinity};

lk_context_params params_of(lk_cache_type type = LK_CACHE_KIVI2) {
    lk_context_params params = test::small_params(type);
    params.n_threads = 1;
    return params;
}

std::vector<int32_t> tokens(int n, int first = 0) {
    std::vector<int32_t> out(n);
    for (int i = 0; i < n; ++i) {
        out[i] = TinyModel::token(first + i);
    }
    return out;
}

// {"layer 1", "attn_q"} for "blk.1.attn_q.weight".
std::vector<std::string> place_of(const std::string& tensor) {
    const std::string base = tensor.substr(0, tensor.size() - std::strlen(".weight"));
    if (base.rfind("blk.", 0) != 0) {
        return {base, tensor};
    }
    return {"layer " + base.substr(4, 1), base.substr(6), tensor};
}

// A tiny model with one bad weight. In token_embd it is in the row of token 5.
std::vector<uint8_t> broken_model(const std::string& tensor, float bad, WeightType type) {
    TinyModel tiny;
    std::vector<uint8_t> bytes = tiny.bytes(type);
    if (type == WeightType::F32) {
        tiny.matrix(tensor).at(5, 77) = bad;
        return tiny.bytes(type);
    }
    // Breaks the scale of its block.
    const auto& m = tiny.matrix(tensor);
    const WeightTypeTraits& traits = *weight_type_traits(type);
    std::vector<uint8_t> blocks(m.x.size() / traits.block_elements * traits.block_bytes);
    quantize_row(type, m.x.data(), static_cast<int64_t>(m.x.size()), blocks.data());
    const auto at = std::search(bytes.begin(), bytes.end(), blocks.begin(), blocks.end());
    EXPECT_NE(at, bytes.end());
    const half_t half = float_to_half(bad);
    std::memcpy(&at[(5 * m.n_cols + 77) / traits.block_elements * traits.block_bytes], &half, sizeof half);
    return bytes;
}

TEST(KernelNotFinite, EveryWeightIsNamedOnEveryTable) {
    TinyModel whole;
    for (const WeightType type : {WeightType::F32, WeightType::F16, WeightType::Q8_0, WeightType::Q4_1}) {
        for (const auto& [tensor, matrix] : whole.matrices()) {
            for (const float bad : kBad) {
                if (type != WeightType::F32 && !std::isnan(bad) && (bad < 0 || type == WeightType::F16)) {
                    continue;
                }
                const LoadedModel model(broken_model(tensor, bad, type));
                for (const cpu::NamedKernels& table : cpu::available_kernels()) {
                    const TableInUse in_use(table.id);
                    TestContext context(params_of(), model.get());
                    for (const int n : {1, 40}) {  // GEMV and tiles
                        SCOPED_TRACE(format("%s %g in %s, %d tokens, %s", weight_type_traits(type)->name, bad,
                                            tensor.c_str(), n, table.id));
                        test::expect_failure(context.decode(tokens(n)), LK_NUMERIC_ERROR, place_of(tensor));
                        const lk_sampling greedy = test::sampling_of(0);
                        int32_t drawn = -1;
                        const std::vector<int32_t> text = tokens(n);
                        const lk_batch batch{text.data(), nullptr, nullptr, nullptr, nullptr, static_cast<uint32_t>(n)};
                        test::expect_failure(lk_decode_sample(context.get(), &batch, &greedy, 1, &drawn),
                                             LK_NUMERIC_ERROR, place_of(tensor));
                        EXPECT_EQ(drawn, -1);
                        EXPECT_EQ(context.length(), 0u);
                    }
                }
            }
        }
    }
}

// Overflow from finite weights is not reported as a damaged tensor.
TEST(KernelNotFinite, WhatGrowsTooLargeIsNamed) {
    struct Case {
        std::function<void(TinyModel&)> change;
        std::vector<std::string> parts;
    };
    const auto scale = [](TinyModel& tiny, const std::string& name, float factor) {
        for (float& x : tiny.matrix(name).x) {
            x *= factor;
        }
    };
    const Case cases[] = {
        {[&](TinyModel& m) { scale(m, "blk.1.attn_v.weight", 1e6f); }, {"layer 1", "value", "65504"}},
        {[&](TinyModel& m) { scale(m, "blk.0.attn_k.weight", 1e6f); }, {"layer 0", "key", "65504"}},
        {[&](TinyModel& m) { scale(m, "blk.0.attn_q.weight", 1e37f), scale(m, "blk.0.attn_k.weight", 1e3f); },
         {"layer 0", "attention", "finite queries"}},
        {[&](TinyModel& m) { scale(m, "blk.1.ffn_gate.weight", 1e22f), scale(m, "blk.1.ffn_up.weight", 1e22f); },
         {"layer 1", "ffn_down", "activation"}},
        {[&](TinyModel& m) { scale(m, "blk.0.attn_output.weight", 3e38f), scale(m, "blk.0.attn_v.weight", 1e3f); },
         {"layer 0", "attn_output", "finite weights"}},
        {[&](TinyModel& m) { scale(m, "blk.0.attn_output.weight", 1e25f); }, {"layer 0", "ffn_gate", "norm"}},
        {[&](TinyModel& m) { scale(m, "blk.1.ffn_down.weight", 1e25f); }, {"output_norm"}},
        {[&](TinyModel& m) { scale(m, "output.weight", 3e38f); }, {"output", "finite weights"}},
    };
    for (const Case& c : cases) {
        TinyModel tiny;
        c.change(tiny);
        const LoadedModel model(tiny.bytes());
        for (const cpu::NamedKernels& table : cpu::available_kernels()) {
            const TableInUse in_use(table.id);
            TestContext context(params_of(), model.get());
            for (const int n : {1, 40}) {
                SCOPED_TRACE(format("%s, %s, %d tokens", c.parts.back().c_str(), table.id, n));
                test::expect_failure(context.decode(tokens(n)), LK_NUMERIC_ERROR, c.parts);
                EXPECT_EQ(std::string(lk_last_error()).find("contains NaN"), std::string::npos);
            }
        }
    }
}

TEST(KernelNotFinite, AFailedCallLeavesSequencesAsTheyWere) {
    test::expect_failed_calls_change_nothing(0, params_of());
}

TEST(KernelNotFinite, EmbeddingsOfTheCaller) {
    const LoadedModel model(TinyModel().bytes(WeightType::Q8_0));
    for (const cpu::NamedKernels& table : cpu::available_kernels()) {
        const TableInUse in_use(table.id);
        TestContext context(params_of(), model.get());
        const auto decode = [&](std::vector<float>& x) {
            const lk_batch batch{nullptr, x.data(), nullptr,
                                 nullptr, nullptr,  static_cast<uint32_t>(x.size() / TinyModel::kEmbd)};
            return lk_decode(context.get(), &batch);
        };
        for (const float bad : kBad) {
            for (const int at : {0, 7, 2 * TinyModel::kEmbd + 100}) {
                SCOPED_TRACE(format("%g at %d, %s", bad, at, table.id));
                std::vector<float> x(3 * TinyModel::kEmbd, 0.5f);
                x[at] = bad;
                test::expect_failure(
                    decode(x), LK_NUMERIC_ERROR,
                    {format("element %d of embedding %d", at % TinyModel::kEmbd, at / TinyModel::kEmbd),
                     std::isnan(bad) ? "NaN" : "infinite"});
                EXPECT_EQ(context.length(), 0u);
            }
        }
        // Squares overflow: the result must not silently be zeros.
        std::vector<float> x(3 * TinyModel::kEmbd, 0.5f);
        x[200] = 3e37f;
        test::expect_failure(decode(x), LK_NUMERIC_ERROR, {"layer 0", "norm"});
        x[200] = 0.5f;
        EXPECT_EQ(decode(x), LK_OK) << lk_last_error();
    }
}

TEST(KernelNotFinite, RotaryFrequenciesThatOverflowAreRefused) {
    const lk_metadata_override overrides[] = {{"llama.rope.scaling.type", "linear", 0, 0, LK_VALUE_STRING},
                                              {"llama.rope.scaling.factor", nullptr, 0, 1e-40, LK_VALUE_FLOAT64}};
    lk_model_params params;
    lk_model_params_default(&params);
    params.n_overrides = 2;
    params.overrides = overrides;
    lk_model* model = nullptr;
    test::expect_failure(lk_model_load(LK_GOLDEN_DIR "/llama.gguf", &params, &model), LK_BAD_FILE,
                         {"RoPE frequency", "rope.scaling"});
    EXPECT_EQ(model, nullptr);
}

// A matmul with a bad block or a bad activation is never finite.
TEST(KernelNotFinite, ProductsPassItOn) {
    constexpr int kRows = 45;
    constexpr int kCols = 512;
    std::mt19937 random(5);
    for (const WeightType type : test::kWeightTypes) {
        const WeightTypeTraits& traits = *weight_type_traits(type);
        for (const int n_tokens : {1, 3, 17}) {
            std::normal_distribution<float> normal;
            std::vector<float> x(static_cast<size_t>(n_tokens) * kCols);
            std::generate(x.begin(), x.end(), [&] { return normal(random); });
            const std::vector<uint8_t> bytes = test::draw_weights(type, int64_t{kRows} * kCols, random);
            const size_t row_bytes = bytes.size() / kRows;
            for (const Kernels* kernels : test::kernel_tables()) {
                const auto multiply = [&](const std::vector<uint8_t>& weights, const std::vector<float>& input) {
                    const Activations a(*kernels, input, kCols);
                    std::vector<float> y(static_cast<size_t>(n_tokens) * kRows);
                    kernels->matmul({type, weights.data(), kCols, kRows, row_bytes}, 0, kRows, a.rows.data(), n_tokens,
                                    y.data(), kRows);
                    return y;
                };
                for (const float bad : kBad) {
                    for (const int at : {0, 31, 300, kCols - 1}) {
                        SCOPED_TRACE(
                            format("%s, %d tokens, %s, %g at %d", traits.name, n_tokens, kernels->name, bad, at));
                        std::vector<float> input = x;
                        input[(n_tokens - 1) * kCols + at] = bad;
                        const std::vector<float> y = multiply(bytes, input);
                        for (int i = 0; i < n_tokens * kRows; ++i) {
                            ASSERT_EQ(std::isfinite(y[i]), i / kRows != n_tokens - 1) << i;
                        }
                        EXPECT_FALSE(kernels->finite(y.data(), kRows, n_tokens, kRows));
                    }
                }
                // Sets the scale of a block of row 19 to NaN.
                std::vector<uint8_t> weights = bytes;
                const size_t scale_at = type == WeightType::Q6_K   ? offsetof(BlockQ6_K, d)
                                        : type == WeightType::Q3_K ? offsetof(BlockQ3_K, d)
                                        : type == WeightType::Q2_K ? offsetof(BlockQ2_K, d)
                                        : type == WeightType::F32  ? 2
                                                                   : 0;
                const uint16_t nan = type == WeightType::F32 || type == WeightType::BF16 ? 0x7fc0 : 0x7e00;
                std::memcpy(&weights[19 * row_bytes + scale_at], &nan, sizeof nan);
                const std::vector<float> y = multiply(weights, x);
                for (int i = 0; i < n_tokens * kRows; ++i) {
                    ASSERT_EQ(std::isfinite(y[i]), i % kRows != 19) << traits.name << ", " << kernels->name << " " << i;
                }
            }
        }
    }
}

TEST(KernelNotFinite, RowsPassItOn) {
    for (const int n : {1, 7, 8, 33, 200}) {
        for (const float bad : kBad) {
            for (const int at : {0, n / 2, n - 1}) {
                for (const Kernels* kernels : test::kernel_tables()) {
                    SCOPED_TRACE(format("%g at %d of %d, %s", bad, at, n, kernels->name));
                    const std::vector<float> ones(n, 1.0f);
                    std::vector<float> x(n, 0.25f);
                    x[at] = bad;
                    std::vector<float> out(n);
                    const auto finite = [&](const std::vector<float>& y) { return kernels->finite(y.data(), n, 1, n); };
                    EXPECT_FALSE(finite(x));
                    EXPECT_TRUE(finite(ones));
                    kernels->rms_norm(x.data(), ones.data(), 1e-5f, n, out.data());
                    EXPECT_FALSE(finite(out));
                    kernels->layer_norm(x.data(), ones.data(), ones.data(), 1e-5f, n, out.data());
                    EXPECT_FALSE(finite(out));
                    if (bad != -kInfinity) {  // silu(-infinity) is 0
                        out = x;
                        kernels->gelu(out.data(), n);
                        EXPECT_FALSE(finite(out));
                        out = x;
                        kernels->swiglu(out.data(), ones.data(), n);
                        EXPECT_FALSE(finite(out));
                    }
                    if (std::isnan(bad)) {
                        out = x;
                        EXPECT_TRUE(std::isnan(kernels->softmax_part(out.data(), n, 0.25f)));
                    }
                }
            }
        }
    }
    for (const Kernels* kernels : test::kernel_tables()) {
        // Squares overflow floats.
        const std::vector<float> ones(64, 1.0f);
        const std::vector<float> large(64, 1e20f);
        std::vector<float> out(64);
        kernels->rms_norm(large.data(), ones.data(), 1e-5f, 64, out.data());
        EXPECT_FALSE(kernels->finite(out.data(), 64, 1, 64)) << kernels->name;
        const std::vector<float> largest{FLT_MAX, -FLT_MAX, 0, 1e-45f};
        EXPECT_TRUE(kernels->finite(largest.data(), 4, 1, 4)) << kernels->name;
    }
}

TEST(Sampling, LogitsThatAreNoNumbersAreRefused) {
    const lk_sampling kinds[] = {test::sampling_of(0), test::sampling_of(1), test::sampling_of(0.7f, 2, 0.9f, 0.1f)};
    for (lk_sampling sampling : kinds) {
        for (const int at : {0, 1, 3}) {
            std::vector<float> logits{1, 2, 3, 4};
            for (const float bad : {kNan, kInfinity}) {
                logits[at] = bad;
                test::expect_error(LK_NUMERIC_ERROR,
                                   {"token " + std::to_string(at), std::isnan(bad) ? "NaN" : "infinite"},
                                   [&] { sample_row(logits.data(), 4, sampling); });
            }
            logits[at] = -kInfinity;  // excludes the token
            for (const double draw : {0.0, 0.3, 0.999}) {
                sampling.draw = draw;
                EXPECT_NE(sample_row(logits.data(), 4, sampling), at);
            }
        }
        std::vector<float> none(4, -kInfinity);
        test::expect_error(LK_NUMERIC_ERROR, {"every logit"}, [&] { sample_row(none.data(), 4, sampling); });
    }
}

}  // namespace
}  // namespace lk
