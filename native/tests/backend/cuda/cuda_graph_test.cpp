// Decode steps as CUDA graphs against the same steps queued launch by launch: the same bits. Without a GPU the tests
// are skipped.
#include <algorithm>
#include <limits>
#include <map>
#include <thread>
#include <vector>

#include "support/cuda_helpers.h"
#include "support/environment.h"
#include "support/tiny_model.h"

namespace lk {
namespace {

lk_model* load(const std::string& path, int n_gpu_layers) {
    lk_model_params params;
    lk_model_params_default(&params);
    params.n_gpu_layers = n_gpu_layers;
    lk_model* model = nullptr;
    EXPECT_EQ(lk_model_load(path.c_str(), &params, &model), LK_OK) << lk_last_error();
    return model;
}

// The demo model in Q4_K_M and in F16: B=1 runs other kernels, and many sequences of F16 use cuBLAS.
lk_model* model_of(bool halves, int n_gpu_layers = -1) {
    static const test::TemporaryFolder folder;
    static const std::string exact = [] {
        const std::string to = folder.file("llama-kivi-graph-f16.gguf");
        lk_quantize_params params;
        lk_quantize_params_default(&params);
        params.type = "F16";
        EXPECT_EQ(lk_quantize(test::demo_model_path(), to.c_str(), &params, nullptr), LK_OK) << lk_last_error();
        return to;
    }();
    static std::map<std::pair<bool, int>, lk_model*> models;
    lk_model*& model = models[{halves, n_gpu_layers}];
    if (model == nullptr) {
        model = load(halves ? exact : test::demo_model_path(), n_gpu_layers);
    }
    return model;
}

// A context whose steps are graphs (`check`: a graph that the driver refuses is an error), or none (`0`).
class Setting {
public:
    explicit Setting(const char* value) { test::set_environment("LLAMA_KIVI_CUDA_GRAPHS", value); }
    ~Setting() { test::unset_environment("LLAMA_KIVI_CUDA_GRAPHS"); }
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;
};

std::unique_ptr<test::TestContext> context_with(const char* graphs, const lk_context_params& params, lk_model* model) {
    const Setting setting(graphs);
    return std::make_unique<test::TestContext>(params, model);
}

class CudaGraphs : public testing::Test {
protected:
    void SetUp() override { LK_NEED_GPU(); }
};

// A step of one token for each of these sequences. Returns the logits.
std::vector<test::Logits> step(test::TestContext& context, const std::vector<int32_t>& seqs, int at) {
    std::vector<int32_t> tokens;
    for (const int32_t seq : seqs) {
        tokens.push_back(test::text_tokens(210)[(static_cast<size_t>(at) * 7 + static_cast<size_t>(seq) * 31) % 210]);
    }
    const std::vector<uint8_t> outputs(seqs.size(), 1);
    const lk_batch batch{tokens.data(), nullptr,        seqs.data(),
                         nullptr,       outputs.data(), static_cast<uint32_t>(seqs.size())};
    EXPECT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
    std::vector<test::Logits> logits;
    for (size_t i = 0; i < seqs.size(); ++i) {
        logits.push_back(context.logits(static_cast<uint32_t>(i)));
    }
    return logits;
}

// Sequences of other lengths, so that each flushes in another step; prompts between the steps; sequences that end.
void expect_same_bits(lk_model* model, lk_context_params params, int n_seq, int n_steps) {
    params.n_seq_max = static_cast<uint32_t>(n_seq);
    params.n_ctx = static_cast<uint32_t>(n_seq * 1024);
    const auto graphs = context_with("check", params, model);
    const auto queued = context_with("0", params, model);
    std::vector<int32_t> seqs;
    for (int32_t seq = 0; seq < n_seq; ++seq) {
        const std::vector<int32_t> prompt = test::text_tokens(1 + seq * 53 % 400);
        ASSERT_EQ(graphs->run(prompt, seq), queued->run(prompt, seq));
        seqs.push_back(seq);
    }
    for (int at = 0; at < n_steps; ++at) {
        if (at == n_steps / 2 && n_seq > 1) {
            seqs.pop_back();  // another number of rows
        }
        if (at % 50 == 49) {
            const std::vector<int32_t> more = test::text_tokens(9);
            ASSERT_EQ(graphs->run(more, 0), queued->run(more, 0)) << "step " << at;
        }
        ASSERT_EQ(step(*graphs, seqs, at), step(*queued, seqs, at)) << "step " << at;
    }
}

TEST_F(CudaGraphs, OneSequenceHasTheSameBits) {
    for (const bool halves : {false, true}) {
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI4, LK_CACHE_Q8_0}) {
            SCOPED_TRACE(format("%s, %s", halves ? "F16" : "Q4_K_M", lk_cache_type_name(type)));
            expect_same_bits(model_of(halves), test::small_params(type), 1, 200);
        }
    }
}

TEST_F(CudaGraphs, RaggedBatchesHaveTheSameBits) {
    for (const bool halves : {false, true}) {
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
            for (const int n_seq : {3, 20, 70}) {
                SCOPED_TRACE(
                    format("%s, %s, %d sequences", halves ? "F16" : "Q4_K_M", lk_cache_type_name(type), n_seq));
                expect_same_bits(model_of(halves), test::small_params(type), n_seq, 60);
            }
        }
    }
}

TEST_F(CudaGraphs, LayersOnTheCpuChangeNothing) {
    expect_same_bits(model_of(true, 5), test::small_params(LK_CACHE_KIVI2), 3, 60);
}

TEST_F(CudaGraphs, BatchInvariantStepsHaveTheSameBits) {
    lk_context_params params = test::small_params(LK_CACHE_KIVI2);
    params.batch_invariant = 1;
    for (const bool halves : {false, true}) {
        expect_same_bits(model_of(halves), params, 5, 60);
    }
}

// The sampling of a step, with penalties for the tokens before it.
lk_sampling sampling_of(float temperature, int step, std::vector<lk_token_count>& recent) {
    std::sort(recent.begin(), recent.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
    lk_sampling sampling{};
    sampling.temperature = temperature;
    sampling.top_k = 50;
    sampling.top_p = 0.9f;
    sampling.repeat_penalty = 1.1f;
    sampling.n_recent = static_cast<uint32_t>(recent.size());
    sampling.recent = recent.data();
    sampling.draw = step * 37 % 100 / 100.0;
    return sampling;
}

TEST_F(CudaGraphs, TokensDrawnOnTheDeviceAreTheSame) {
    for (const float temperature : {0.0f, 1.0f}) {
        const auto graphs = context_with("check", test::small_params(), model_of(false));
        const auto queued = context_with("0", test::small_params(), model_of(false));
        std::vector<lk_token_count> recent;
        int32_t next[2] = {486, 486};
        for (int i = 0; i < 150; ++i) {
            const lk_sampling sampling = sampling_of(temperature, i, recent);
            int which = 0;
            for (test::TestContext* const context : {graphs.get(), queued.get()}) {
                const lk_batch batch{&next[which], nullptr, nullptr, nullptr, nullptr, 1};
                ASSERT_EQ(lk_decode_sample(context->get(), &batch, &sampling, 1, &next[which]), LK_OK)
                    << lk_last_error();
                ++which;
            }
            ASSERT_EQ(next[0], next[1]) << "step " << i;
            const auto known =
                std::find_if(recent.begin(), recent.end(), [&](const lk_token_count& r) { return r.token == next[0]; });
            if (known != recent.end()) {
                ++known->count;
            } else {
                recent.push_back({next[0], 1});
            }
        }
    }
}

// Two contexts of a model, decoding in turns: each has graphs of its own, and memory of one is not the other's.
TEST_F(CudaGraphs, ContextsDoNotDisturbEachOther) {
    const auto first = context_with("check", test::small_params(), model_of(false));
    const auto second = context_with("check", test::small_params(), model_of(false));
    const auto queued = context_with("0", test::small_params(), model_of(false));
    for (int at = 0; at < 60; ++at) {
        const std::vector<test::Logits> expected = step(*queued, {0, 1}, at);
        ASSERT_EQ(step(*first, {0, 1}, at), expected);
        ASSERT_EQ(step(*second, {0, 1}, at), expected);
    }
}

// Two threads, each with a context of its own: one builds graphs while the other allocates and copies.
TEST_F(CudaGraphs, ContextsOfTwoThreadsHaveTheSameBits) {
    constexpr int kSteps = 60;
    lk_model* const model = model_of(true);
    const auto queued = context_with("0", test::small_params(), model);
    std::vector<std::vector<test::Logits>> expected;
    for (int at = 0; at < kSteps; ++at) {
        expected.push_back(step(*queued, {0, 1}, at));
    }
    const auto first = context_with("check", test::small_params(), model);
    const auto second = context_with("check", test::small_params(), model);
    const auto run = [&](test::TestContext& context) {
        for (int at = 0; at < kSteps; ++at) {
            EXPECT_EQ(step(context, {0, 1}, at), expected[at]) << "step " << at;
        }
    };
    std::thread other([&] { run(*first); });
    run(*second);
    other.join();
}

// A step of a graph that gives NaN has the error of its operation and leaves the sequence as it was.
TEST_F(CudaGraphs, NanIsAttributed) {
    constexpr int32_t kBad = 95;
    test::TinyModel tiny;
    tiny.matrix("token_embd.weight").at(kBad, 3) = std::numeric_limits<float>::quiet_NaN();
    const test::LoadedModel model(tiny.bytes(WeightType::F16), -1);
    const auto params = test::small_params();
    const auto graphs = context_with("check", params, model.get());
    const auto queued = context_with("0", params, model.get());
    std::string messages[2];
    for (int at = 0; at < 40; ++at) {
        int which = 0;
        for (test::TestContext* const context : {graphs.get(), queued.get()}) {
            const bool bad = at == 20 || at == 21;
            ASSERT_EQ(context->decode({bad ? kBad : test::TinyModel::token(at) % kBad}), bad ? LK_NUMERIC_ERROR : LK_OK)
                << lk_last_error();
            messages[which++] = bad ? lk_last_error() : "";
            ASSERT_EQ(context->length(), static_cast<uint32_t>(at < 20 ? at + 1 : std::max(20, at - 1)));
        }
        ASSERT_EQ(messages[0], messages[1]) << "step " << at;
    }
    EXPECT_EQ(graphs->length(), queued->length());
}

TEST_F(CudaGraphs, ASettingThatDoesNotExistIsNamed) {
    const Setting setting("yes");
    lk_context* context = nullptr;
    const lk_context_params params = test::small_params();
    EXPECT_EQ(lk_context_create(model_of(false), &params, &context), LK_INVALID_ARGUMENT);
    EXPECT_NE(std::string(lk_last_error()).find("LLAMA_KIVI_CUDA_GRAPHS is 'yes'"), std::string::npos)
        << lk_last_error();
}

}  // namespace
}  // namespace lk
