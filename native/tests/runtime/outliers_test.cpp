// Keys with a few large channels, as the biases of qwen2-like models cause, and activations whose reciprocal overflows:
// every cache type gives finite results on every kernel table, and the tables agree.
#include "support/kv_helpers.h"
#include "support/model_helpers.h"
#include "support/tiny_model.h"
#include "support/weight_rows.h"

namespace lk {
namespace {

using cpu::Kernels;
using test::Activations;
using test::Logits;
using test::TinyModel;

// Logits of every token, decoded one by one.
std::vector<Logits> logits_of(lk_model* model, lk_cache_type type, int n) {
    lk_context_params params = test::small_params(type);
    params.n_threads = 1;
    test::TestContext context(params, model);
    std::vector<Logits> rows;
    for (int i = 0; i < n; ++i) {
        const lk_status status = context.decode({TinyModel::token(i)});
        float* row = nullptr;
        if (status != LK_OK || lk_logits(context.get(), 0, &row) != LK_OK) {
            ADD_FAILURE() << "token " << i << ": " << lk_last_error();
            return {};
        }
        rows.emplace_back(row, row + TinyModel::kVocab);
    }
    return rows;
}

TEST(KernelOutliers, EveryTypeIsFiniteOnEveryTable) {
    constexpr int kTokens = 200;
    for (const float factor : {10.0f, 20.0f, 70.0f, 200.0f}) {
        TinyModel tiny;
        tiny.scale_rows("blk.0.attn_k.weight", {3, 40}, factor);
        tiny.scale_rows("blk.1.attn_k.weight", {7, 22}, factor);
        const test::LoadedModel model(tiny.bytes());
        for (const lk_cache_type type : test::kAllTypes) {
            std::vector<Logits> expected;
            for (const cpu::NamedKernels& table : cpu::available_kernels()) {
                SCOPED_TRACE(format("factor %g, %s, %s", factor, lk_cache_type_name(type), table.id));
                const test::TableInUse in_use(table.id);
                const std::vector<Logits> actual = logits_of(model.get(), type, kTokens);
                ASSERT_EQ(actual.size(), static_cast<size_t>(kTokens));
                double worst = 0;
                for (int i = 0; i < kTokens; ++i) {
                    for (const float x : actual[i]) {
                        ASSERT_TRUE(std::isfinite(x)) << "token " << i;
                    }
                    worst = test::worse(worst, expected.empty() ? 0 : test::distance(expected[i], actual[i]));
                }
                // Values between two codes occasionally round the other way; a wrong kernel is off by 1 and more.
                EXPECT_LT(worst, 0.5);
                expected = actual;
            }
        }
    }
}

// Activations from the smallest float to the largest that a scale and 8 bits can represent.
TEST(KernelOutliers, SmallActivationsKeepTheirSize) {
    for (const float size : {1e-45f, 1e-41f, 1e-39f, 1e-38f, 3e-37f, 4e-37f, 1e-36f, 1e-20f, 1.0f}) {
        std::vector<float> x(256);
        for (int i = 0; i < 256; ++i) {
            x[i] = size * static_cast<float>(std::sin(i));
        }
        for (const Kernels* kernels : test::kernel_tables()) {
            SCOPED_TRACE(format("%s, %g", kernels->name, size));
            const Activations a(*kernels, x, 256);
            for (int i = 0; i < 256; ++i) {
                ASSERT_NEAR(a.super_d[0] * static_cast<float>(a.super_q[i]), x[i], std::max(0.01f * size, 4e-37f)) << i;
                ASSERT_NEAR(a.d[i / 32] * static_cast<float>(a.q[i]), x[i], 0.01f * size + 1e-5f) << i;
            }
        }
    }
}

TEST(KernelOutliers, FoldsOfSmallWeightsAreFinite) {
    constexpr int n = 32;
    const std::vector<float> scale(n, 0.01f);
    const std::vector<float> zero(n, -0.015f);
    for (const float size : {1e-45f, 1e-41f, 1e-39f, 1.2e-38f, 2e-37f, 3e-36f, 1e-34f, 1.0f}) {
        std::vector<float> p(n);
        for (int i = 0; i < n; ++i) {
            p[i] = size * static_cast<float>(i % 5);
        }
        for (const Kernels* kernels : test::kernel_tables()) {
            SCOPED_TRACE(format("%s, %g", kernels->name, size));
            std::vector<int8_t> w(n, 99);
            float step = -1;
            float bias = -1;
            kernels->fold(p.data(), n, 1, scale.data(), zero.data(), 1.5f, n, w.data(), &step, &bias);
            ASSERT_TRUE(std::isfinite(step) && std::isfinite(bias)) << step << " " << bias;
            for (int i = 0; i < n; ++i) {
                ASSERT_NEAR(step * static_cast<float>(w[i]), p[i] * scale[i], 0.005f * size + 4e-37f) << i;
            }
        }
    }
}

}  // namespace
}  // namespace lk
