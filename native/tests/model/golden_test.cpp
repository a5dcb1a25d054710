// Logits of tiny random models against an independent float64 implementation (golden/make_golden.py), and with an f32
// cache against one that does not round keys and values (golden/make_exact.py).
#include <fstream>
#include <limits>

#include "support/gpu.h"
#include "support/model_helpers.h"

namespace lk::test {

namespace {

constexpr int kVocab = 96;
constexpr int kTokens = 40;
// With F16 weights, activations stay in float, and the reference rounds keys and values to halves as the cache does. A
// key between two halves may still round the other way.
constexpr double kTolerance = 5e-4;
// Nothing is rounded but floats.
constexpr double kExactTolerance = 1e-5;
// On the GPU, matmuls with more than a few tokens round their input to halves.
constexpr double kGpuTolerance = 5e-3;

std::vector<Logits> read_logits(const std::string& name) {
    std::ifstream file(std::string(LK_GOLDEN_DIR) + "/" + name + ".logits", std::ios::binary);
    std::vector<Logits> rows(kTokens, Logits(kVocab));
    for (Logits& row : rows) {
        file.read(reinterpret_cast<char*>(row.data()), kVocab * sizeof(float));
    }
    EXPECT_TRUE(file.good()) << name;
    return rows;
}

class Golden : public testing::TestWithParam<const char*> {};

}  // namespace

// Largest distance of a token's logits from `expected`, over calls of several sizes.
double logits_distance(const std::string& name, const std::vector<Logits>& expected, int n_gpu_layers,
                       lk_cache_type type) {
    double largest = 0;
    lk_model_params model_params;
    lk_model_params_default(&model_params);
    model_params.n_gpu_layers = n_gpu_layers;
    lk_model* model = nullptr;
    EXPECT_EQ(lk_model_load((std::string(LK_GOLDEN_DIR) + "/" + name + ".gguf").c_str(), &model_params, &model), LK_OK)
        << lk_last_error();
    for (const int step : {1, 7, kTokens}) {  // token by token, in pieces, all at once
        TestContext context(small_params(type), model);
        for (int begin = 0; begin < kTokens; begin += step) {
            const int n = std::min(step, kTokens - begin);
            std::vector<int32_t> tokens(n);
            for (int i = 0; i < n; ++i) {
                const int t = begin + i;
                tokens[i] = (7 * t * t + 13 * t + 5) % kVocab;
            }
            const std::vector<uint8_t> outputs(n, 1);
            const lk_batch batch{tokens.data(), nullptr, nullptr, nullptr, outputs.data(), static_cast<uint32_t>(n)};
            EXPECT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
            for (int i = 0; i < n; ++i) {
                float* row = nullptr;
                const lk_status status = lk_logits(context.get(), i, &row);
                EXPECT_EQ(status, LK_OK) << lk_last_error();
                if (status != LK_OK) {
                    lk_model_free(model);
                    return std::numeric_limits<double>::infinity();
                }
                largest = worse(largest, distance(expected[begin + i], Logits(row, row + kVocab)));
            }
        }
    }
    lk_model_free(model);
    return largest;
}

TEST_P(Golden, LogitsMatch) {
    EXPECT_LT(logits_distance(GetParam(), read_logits(GetParam()), 0, LK_CACHE_F16), kTolerance);
}

TEST_P(Golden, LogitsMatchOnTheGpu) {
    LK_NEED_GPU();
    EXPECT_LT(logits_distance(GetParam(), read_logits(GetParam()), -1, LK_CACHE_F16), kGpuTolerance);
}

TEST_P(Golden, ExactLogitsMatchWithAnF32Cache) {
    const std::vector<Logits> exact = read_logits(std::string(GetParam()) + ".exact");
    EXPECT_LT(logits_distance(GetParam(), exact, 0, LK_CACHE_F32), kExactTolerance);
    EXPECT_GT(logits_distance(GetParam(), exact, 0, LK_CACHE_F16), kExactTolerance) << "halves are not that exact";
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         testing::Values("llama", "mistral", "llama-partial", "llama-3.1", "llama-linear", "llama-yarn",
                                         "falcon-7b", "falcon-40b"),
                         [](const auto& info) {
                             std::string name = info.param;
                             for (char& c : name) {
                                 c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                             }
                             return name;
                         });

}  // namespace lk::test
