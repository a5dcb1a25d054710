// The C interface: rejected calls, their status and message, and that they change nothing.
#include <algorithm>
#include <functional>
#include <string>
#include <thread>

#include "backend/cpu/cpu_backend.h"
#include "model/model.h"
#include "support/model_helpers.h"

namespace lk {
namespace {

using test::expect_failure;
using test::make_tokens;
using test::small_params;
using test::TestContext;

TEST(CApi, NullArgumentsAreNamed) {
    TestContext context(small_params());
    lk_context* c = context.get();
    lk_model* model = test::demo_model();
    const lk_gguf* gguf = lk_model_gguf(model);
    lk_model_params model_params;
    lk_model_params_default(&model_params);
    const lk_context_params params = small_params();
    const int32_t token = 1;
    const lk_batch batch{&token, nullptr, nullptr, nullptr, nullptr, 1};
    lk_model* model_out = nullptr;
    lk_model_info info;
    lk_context* context_out = nullptr;
    lk_memory_estimate estimate;
    lk_cache_usage usage;
    uint32_t n = 0;
    float* row = nullptr;
    struct Row {
        const char* argument;
        std::function<lk_status()> call;
    };
    const Row rows[] = {
        {"path", [&] { return lk_model_load(nullptr, &model_params, &model_out); }},
        {"params", [&] { return lk_model_load(test::demo_model_path(), nullptr, &model_out); }},
        {"out", [&] { return lk_model_load(test::demo_model_path(), &model_params, nullptr); }},
        {"model", [&] { return lk_model_describe(nullptr, &info); }},
        {"out", [&] { return lk_model_describe(model, nullptr); }},
        {"gguf", [&] { return lk_context_estimate(nullptr, 0, &params, &estimate); }},
        {"params", [&] { return lk_context_estimate(gguf, 0, nullptr, &estimate); }},
        {"out", [&] { return lk_context_estimate(gguf, 0, &params, nullptr); }},
        {"model", [&] { return lk_context_create(nullptr, &params, &context_out); }},
        {"params", [&] { return lk_context_create(model, nullptr, &context_out); }},
        {"out", [&] { return lk_context_create(model, &params, nullptr); }},
        {"context", [&] { return lk_decode(nullptr, &batch); }},
        {"batch", [&] { return lk_decode(c, nullptr); }},
        {"context", [&] { return lk_logits(nullptr, 0, &row); }},
        {"out", [&] { return lk_logits(c, 0, nullptr); }},
        {"context", [&] { return lk_embedding(nullptr, 0, &row); }},
        {"out", [&] { return lk_embedding(c, 0, nullptr); }},
        {"context", [&] { return lk_context_set_threads(nullptr, 1); }},
        {"context", [&] { return lk_seq_length(nullptr, 0, &n); }},
        {"out", [&] { return lk_seq_length(c, 0, nullptr); }},
        {"context", [&] { return lk_seq_truncate(nullptr, 0, 0); }},
        {"context", [&] { return lk_seq_copy(nullptr, 0, 1); }},
        {"context", [&] { return lk_cache_describe(nullptr, &usage); }},
        {"out", [&] { return lk_cache_describe(c, nullptr); }},
    };
    for (const Row& r : rows) {
        expect_failure(r.call(), LK_INVALID_ARGUMENT, {std::string("'") + r.argument + "'", "NULL"});
    }
    lk_model_params_default(nullptr);
    lk_context_params_default(nullptr);
    lk_model_free(nullptr);
    lk_context_free(nullptr);
    lk_context_cancel(nullptr);
    lk_context_cancel_reset(nullptr);
    EXPECT_EQ(lk_model_gguf(nullptr), nullptr);
}

TEST(CApi, StructSizesAreChecked) {
    lk_model* model = test::demo_model();
    for (const uint32_t size : {0u, 4u, 1u << 20}) {
        lk_model_params model_params;
        lk_model_params_default(&model_params);
        model_params.struct_size = size;
        lk_model* out = nullptr;
        const std::string text = "struct_size is " + std::to_string(size);
        expect_failure(lk_model_load(test::demo_model_path(), &model_params, &out), LK_INVALID_ARGUMENT,
                       {"lk_model_params", text, std::to_string(sizeof model_params)});
        lk_context_params params = small_params();
        params.struct_size = size;
        lk_context* context = nullptr;
        expect_failure(lk_context_create(model, &params, &context), LK_INVALID_ARGUMENT, {"lk_context_params", text});
        EXPECT_EQ(context, nullptr);
        lk_memory_estimate estimate;
        expect_failure(lk_context_estimate(lk_model_gguf(model), 0, &params, &estimate), LK_INVALID_ARGUMENT, {text});
    }
}

TEST(CApi, ContextParamsAreChecked) {
    struct Row {
        std::function<void(lk_context_params&)> change;
        lk_status status;
        std::vector<std::string> parts;
    };
    const Row rows[] = {
        {[](auto& p) { p.n_ctx = ~0u; }, LK_INVALID_ARGUMENT, {"n_ctx"}},
        {[](auto& p) { p.n_seq_max = 0; }, LK_INVALID_ARGUMENT, {"n_seq_max"}},
        {[](auto& p) { p.n_seq_max = ~0u; }, LK_INVALID_ARGUMENT, {"n_seq_max"}},
        {[](auto& p) { p.n_ubatch = 0; }, LK_INVALID_ARGUMENT, {"n_ubatch"}},
        {[](auto& p) { p.n_ubatch = ~0u; }, LK_INVALID_ARGUMENT, {"n_ubatch"}},
        {[](auto& p) { p.n_threads = ~0u; }, LK_INVALID_ARGUMENT, {"n_threads"}},
        {[](auto& p) { p.cache.group = 48; }, LK_INVALID_ARGUMENT, {"keys", "48"}},
        {[](auto& p) { p.cache.residual = -1; }, LK_INVALID_ARGUMENT, {"residual is -1", "at least 1"}},
        {[](auto& p) { p.cache.refined = 9; }, LK_INVALID_ARGUMENT, {"refined is 9"}},
        {[](auto& p) { p.cache.residual_type = static_cast<lk_row_type>(3); }, LK_INVALID_ARGUMENT, {"residual_type"}},
        {[](auto& p) { p.cache.residual = 1 << 20; }, LK_INVALID_ARGUMENT, {"residual"}},
        {[](auto& p) { p.cache.sinks = 33; }, LK_INVALID_ARGUMENT, {"sinks"}},
        {[](auto& p) { p.cache.type_v = LK_CACHE_TYPE_COUNT; }, LK_INVALID_ARGUMENT, {"values", "14"}},
        {[](auto& p) { p.cache.type_k = static_cast<lk_cache_type>(-1); }, LK_INVALID_ARGUMENT, {"keys"}},
    };
    for (const Row& row : rows) {
        lk_context_params params = small_params();
        row.change(params);
        lk_context* context = nullptr;
        expect_failure(lk_context_create(test::demo_model(), &params, &context), row.status, row.parts);
        EXPECT_EQ(context, nullptr);
        lk_memory_estimate estimate;
        expect_failure(lk_context_estimate(lk_model_gguf(test::demo_model()), 0, &params, &estimate), row.status,
                       row.parts);
    }
}

TEST(CApi, EstimatesRefuseWhatTheGpuDoesNotSupport) {
    lk_context_params params = small_params();
    lk_memory_estimate estimate;
    params.cache = {LK_CACHE_KIVI2, LK_CACHE_KIVI2, 0, 128, -1, 0, LK_ROWS_OWN, 0, 0};
    const lk_gguf* const gguf = lk_model_gguf(test::demo_model());
    EXPECT_EQ(lk_context_estimate(gguf, 0, &params, &estimate), LK_OK) << lk_last_error();
    const uint64_t q8 = estimate.cache_exact_bytes;
    params.cache.residual = 65536;
    for (const int32_t n_gpu_layers : {1, -1}) {
        expect_failure(lk_context_estimate(gguf, n_gpu_layers, &params, &estimate), LK_UNSUPPORTED,
                       {"cache.residual is 65536; the GPU supports at most 32704", "leave all layers on the CPU"});
    }
    EXPECT_EQ(lk_context_estimate(gguf, 0, &params, &estimate), LK_OK) << lk_last_error();
    params.cache.residual = 128;
    EXPECT_EQ(lk_context_estimate(gguf, -1, &params, &estimate), LK_OK) << lk_last_error();
    params.cache.residual_type = LK_ROWS_F16;
    EXPECT_EQ(lk_context_estimate(gguf, 0, &params, &estimate), LK_OK) << lk_last_error();
    EXPECT_LT(q8, 0.55 * estimate.cache_exact_bytes);
    EXPECT_EQ(lk_context_estimate(gguf, -1, &params, &estimate), LK_OK) << lk_last_error();
}

TEST(CApi, BadBatchesChangeNothing) {
    TestContext context(small_params());
    TestContext untouched(small_params());
    context.run(make_tokens(70));
    untouched.run(make_tokens(70));
    struct Row {
        std::vector<int32_t> tokens, seqs, pos;
        std::vector<std::string> parts;
    };
    constexpr int kLowest = -2147483647 - 1;
    const int32_t token = 1;
    const Row rows[] = {
        {{}, {}, {}, {"empty"}},
        {{1, -1}, {}, {}, {"token 1", "-1", "16383"}},
        {{16384}, {}, {}, {"token 0", "16384", "16383"}},
        {{kLowest}, {}, {}, {"token 0"}},
        {{1, 2, 3}, {0, 1, 3}, {}, {"sequence 3", "0 to 2"}},
        {{1}, {-1}, {}, {"sequence -1"}},
        {{1}, {kLowest}, {}, {"sequence"}},
        {{1}, {}, {69}, {"token 0", "position 69", "sequence 0", "position 70"}},
        {{1, 2}, {}, {70, 70}, {"token 1", "position 70", "position 71"}},
        {{1, 2, 3}, {0, 1, 0}, {70, 0, 72}, {"token 2", "position 72", "position 71"}},
        {{1}, {1}, {70}, {"position 70", "sequence 1", "position 0"}},
        {{1}, {}, {-1}, {"position -1"}},
    };
    for (const Row& r : rows) {
        const lk_batch batch{
            r.tokens.empty() ? &token : r.tokens.data(), nullptr, r.seqs.empty() ? nullptr : r.seqs.data(),
            r.pos.empty() ? nullptr : r.pos.data(),      nullptr, static_cast<uint32_t>(r.tokens.size())};
        expect_failure(lk_decode(context.get(), &batch), LK_INVALID_ARGUMENT, r.parts);
        EXPECT_EQ(context.length(0), 70u);
        EXPECT_EQ(context.length(1), 0u);
        float* row = nullptr;
        expect_failure(lk_logits(context.get(), 0, &row), LK_INVALID_ARGUMENT, {"no logits"});
    }
    const lk_batch no_tokens{nullptr, nullptr, nullptr, nullptr, nullptr, 3};
    expect_failure(lk_decode(context.get(), &no_tokens), LK_INVALID_ARGUMENT, {"batch.tokens", "NULL"});
    const lk_batch huge{&token, nullptr, nullptr, nullptr, nullptr, ~0u};
    EXPECT_NE(lk_decode(context.get(), &huge), LK_OK);
    EXPECT_EQ(context.run({1, 2, 3}), untouched.run({1, 2, 3}));
}

TEST(CApi, OnlyLogitsAskedForAreLent) {
    TestContext context(small_params());
    float* row = nullptr;
    expect_failure(lk_logits(context.get(), 0, &row), LK_INVALID_ARGUMENT, {"no logits"});
    const std::vector<int32_t> tokens = make_tokens(6);
    const std::vector<int32_t> seqs{1, 0, 1, 0, 2, 1};
    const std::vector<uint8_t> outputs{0, 1, 0, 0, 7, 1};
    const lk_batch batch{tokens.data(), nullptr, seqs.data(), nullptr, outputs.data(), 6};
    ASSERT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
    for (uint32_t i = 0; i < 6; ++i) {
        if (outputs[i] != 0) {
            EXPECT_EQ(lk_logits(context.get(), i, &row), LK_OK) << lk_last_error();
        } else {
            expect_failure(lk_logits(context.get(), i, &row), LK_INVALID_ARGUMENT,
                           {"token " + std::to_string(i), "outputs"});
        }
    }
    expect_failure(lk_logits(context.get(), 6, &row), LK_INVALID_ARGUMENT, {"token 6", "6 tokens"});
    expect_failure(lk_logits(context.get(), ~0u, &row), LK_INVALID_ARGUMENT, {});

    // Each row of logits belongs to its token, in whatever order the sequences are computed.
    TestContext apart(small_params());
    EXPECT_LT(test::distance(apart.run({tokens[1]}, 0), context.logits(1)), 0.3);
    EXPECT_LT(test::distance(apart.run({tokens[4]}, 2), context.logits(4)), 0.3);
    EXPECT_LT(test::distance(apart.run({tokens[0], tokens[2], tokens[5]}, 1), context.logits(5)), 0.3);

    const std::vector<uint8_t> none(6, 0);
    const lk_batch silent{tokens.data(), nullptr, seqs.data(), nullptr, none.data(), 6};
    ASSERT_EQ(lk_decode(context.get(), &silent), LK_OK) << lk_last_error();
    expect_failure(lk_logits(context.get(), 5, &row), LK_INVALID_ARGUMENT, {"token 5"});
    EXPECT_EQ(context.length(1), 6u);
}

TEST(CApi, SequenceArgumentsAreChecked) {
    TestContext context(small_params());
    context.run(make_tokens(50));
    lk_context* c = context.get();
    for (const int32_t seq : {-1, 3, 1 << 30, -2147483647 - 1}) {
        const std::string text = "sequence " + std::to_string(seq);
        uint32_t n = 0;
        expect_failure(lk_seq_length(c, seq, &n), LK_INVALID_ARGUMENT, {text});
        expect_failure(lk_seq_truncate(c, seq, 0), LK_INVALID_ARGUMENT, {text});
        expect_failure(lk_seq_copy(c, seq, 0), LK_INVALID_ARGUMENT, {text});
        expect_failure(lk_seq_copy(c, 0, seq), LK_INVALID_ARGUMENT, {text});
    }
    for (const uint32_t n_keep : {50u, 51u, 1u << 31, ~0u}) {  // nothing to remove: no error
        EXPECT_EQ(lk_seq_truncate(c, 0, n_keep), LK_OK);
        EXPECT_EQ(context.length(), 50u);
    }
    EXPECT_EQ(lk_seq_copy(c, 0, 0), LK_OK);
    EXPECT_EQ(context.length(), 50u);
    EXPECT_EQ(lk_seq_copy(c, 1, 0), LK_OK) << "an empty sequence";
    EXPECT_EQ(context.length(), 0u);
    expect_failure(lk_context_set_threads(c, 5000), LK_INVALID_ARGUMENT, {"5000"});
    EXPECT_EQ(lk_context_set_threads(c, 0), LK_OK);
    EXPECT_EQ(context.decode({1}), LK_OK);
}

TEST(CApi, ModelsThatCannotBeLoaded) {
    lk_model_params params;
    lk_model_params_default(&params);
    lk_model* model = reinterpret_cast<lk_model*>(1);
    expect_failure(lk_model_load("/no/such/model.gguf", &params, &model), LK_IO_ERROR, {"/no/such/model.gguf"});
    EXPECT_EQ(model, nullptr);
    EXPECT_EQ(lk_model_load(LK_MODELS_DIR, &params, &model), LK_IO_ERROR) << "a directory: " << lk_last_error();
    EXPECT_EQ(lk_model_load("", &params, &model), LK_IO_ERROR) << lk_last_error();
}

TEST(CApi, ProgressRisesAndStopsALoad) {
    lk_model_params params;
    lk_model_params_default(&params);
    std::vector<float> seen;
    params.progress_user_data = &seen;
    params.progress = [](float fraction, void* data) {
        static_cast<std::vector<float>*>(data)->push_back(fraction);
        return 1;
    };
    for (const uint32_t use_mmap : {0u, 1u}) {
        seen.clear();
        params.use_mmap = use_mmap;
        lk_model* model = nullptr;
        ASSERT_EQ(lk_model_load(test::demo_model_path(), &params, &model), LK_OK) << lk_last_error();
        ASSERT_FALSE(seen.empty());
        EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
        EXPECT_GE(seen.front(), 0);
        EXPECT_EQ(seen.back(), 1);
        TestContext read(small_params(), model);
        lk_model_free(model);
        TestContext mapped(small_params());
        EXPECT_EQ(read.run({1, 2, 3}), mapped.run({1, 2, 3}));
    }
    params.progress = [](float, void*) { return 0; };
    lk_model* model = nullptr;
    expect_failure(lk_model_load(test::demo_model_path(), &params, &model), LK_CANCELLED, {});
    EXPECT_EQ(model, nullptr);
}

TEST(CApi, MessagesBelongToTheirThread) {
    uint32_t n = 0;
    TestContext context(small_params());
    expect_failure(lk_seq_length(context.get(), 77, &n), LK_INVALID_ARGUMENT, {"sequence 77"});
    std::thread([&] {
        EXPECT_STREQ(lk_last_error(), "");
        lk_seq_length(context.get(), 78, &n);
    }).join();
    EXPECT_NE(std::string(lk_last_error()).find("sequence 77"), std::string::npos);
}

// Logits = output matrix * embedding.
TEST(CApi, EmbeddingsAreWhatTheLogitsAreMadeOf) {
    lk_context_params params = small_params();
    TestContext logits(params);
    params.embeddings = 1;
    TestContext embeddings(params);
    const std::vector<int32_t> tokens = make_tokens(150);
    const test::Logits expected = logits.run(tokens);
    ASSERT_EQ(embeddings.decode(tokens), LK_OK) << lk_last_error();
    float* embedding = nullptr;
    ASSERT_EQ(lk_embedding(embeddings.get(), 149, &embedding), LK_OK) << lk_last_error();
    const auto model = Model::load(test::demo_model_path(), true, 0, nullptr);
    test::Logits product(expected.size());
    const Product products[] = {{&model->output, product.data()}};
    make_cpu_backend(2)->matmul(Rows::plain(embedding), 1, products);
    EXPECT_EQ(product, expected);

    float* row = nullptr;
    expect_failure(lk_logits(embeddings.get(), 149, &row), LK_INVALID_ARGUMENT, {"embeddings, not logits"});
    expect_failure(lk_embedding(logits.get(), 149, &row), LK_INVALID_ARGUMENT, {"logits, not embeddings"});
    expect_failure(lk_embedding(embeddings.get(), 3, &row), LK_INVALID_ARGUMENT, {"did not request", "token 3"});
}

// A batch of rows of token_embd equals a batch of the tokens.
TEST(CApi, BatchesOfEmbeddings) {
    const auto model = Model::load(test::demo_model_path(), true, 0, nullptr);
    const std::vector<int32_t> tokens = make_tokens(70);
    const int n_embd = model->config.n_embd;
    std::vector<float> rows(tokens.size() * n_embd);
    make_cpu_backend(1)->embed(model->token_embd, tokens.data(), 70, rows.data());
    lk_context_params params = small_params();
    params.n_ubatch = 32;
    TestContext expected(params);
    TestContext context(params);
    std::vector<int32_t> seqs(70);
    for (int i = 0; i < 70; ++i) {
        seqs[i] = i % 2;  // not sorted
    }
    const std::vector<uint8_t> outputs(70, 1);
    lk_batch batch{tokens.data(), nullptr, seqs.data(), nullptr, outputs.data(), 70};
    ASSERT_EQ(lk_decode(expected.get(), &batch), LK_OK) << lk_last_error();
    batch.embeddings = rows.data();
    expect_failure(lk_decode(context.get(), &batch), LK_INVALID_ARGUMENT, {"both given"});
    batch.tokens = nullptr;
    ASSERT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
    for (int i = 0; i < 70; ++i) {
        ASSERT_EQ(context.logits(i), expected.logits(i)) << i;
    }
    batch.embeddings = nullptr;
    expect_failure(lk_decode(context.get(), &batch), LK_INVALID_ARGUMENT, {"NULL"});
}

TEST(CApi, AmountsOfTheLastError) {
    lk_context_params params = small_params();
    params.n_ctx = 300;
    TestContext context(params);
    context.run(make_tokens(290));
    expect_failure(context.decode(make_tokens(25)), LK_CACHE_FULL, {"25 more"});
    uint64_t needed = 0;
    uint64_t available = 0;
    lk_last_error_amounts(&needed, &available);
    EXPECT_EQ(needed, 25u);
    EXPECT_EQ(available, 10u);
    expect_failure(context.decode({-1}), LK_INVALID_ARGUMENT, {"token 0"});
    lk_last_error_amounts(&needed, &available);
    EXPECT_EQ(needed, 0u);
    lk_last_error_amounts(nullptr, nullptr);
}

TEST(CApi, LogGoesToTheListener) {
    test::demo_model();  // load before listening: loading logs a line
    std::vector<std::string> lines;
    lk_log_set([](lk_log_level, const char* text,
                  void* lines) { static_cast<std::vector<std::string>*>(lines)->push_back(text); },
               &lines);
    lk_model_free(test::load_demo_model());
    { TestContext context(small_params()); }
    lk_log_set(nullptr, nullptr);
    { TestContext context(small_params()); }
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_NE(lines[0].find("36.6 million weights"), std::string::npos) << lines[0];
    EXPECT_NE(lines[1].find("1024 tokens in 3 sequences, keys kivi2"), std::string::npos) << lines[1];
}

TEST(CApi, Names) {
    EXPECT_EQ(lk_abi_version(), static_cast<uint32_t>(LK_ABI_VERSION));
    EXPECT_EQ(std::count(lk_version(), lk_version() + std::char_traits<char>::length(lk_version()), '.'), 2);
    const char* statuses[] = {"LK_OK",
                              "LK_INVALID_ARGUMENT",
                              "LK_IO_ERROR",
                              "LK_BAD_FILE",
                              "LK_UNSUPPORTED",
                              "LK_OUT_OF_MEMORY",
                              "LK_CACHE_FULL",
                              "LK_CANCELLED",
                              "LK_NUMERIC_ERROR",
                              "LK_INTERNAL_ERROR",
                              "LK_BAD_STATE",
                              "LK_OUT_OF_DEVICE_MEMORY",
                              "LK_DEVICE_ERROR",
                              "LK_BUSY"};
    for (int i = 0; i < 14; ++i) {
        EXPECT_STREQ(lk_status_name(static_cast<lk_status>(i)), statuses[i]);
    }
    EXPECT_STREQ(lk_status_name(static_cast<lk_status>(14)), "unknown");
    const char* types[] = {"f16", "kivi4", "kivi2", "kivi4-paper", "kivi2-paper", "q8_0",   "q4_0",
                           "f32", "bf16",  "q5_1",  "q5_0",        "q4_1",        "iq4_nl", "kivi3"};
    for (int i = 0; i < LK_CACHE_TYPE_COUNT; ++i) {
        EXPECT_STREQ(lk_cache_type_name(static_cast<lk_cache_type>(i)), types[i]);
    }
    EXPECT_EQ(lk_cache_type_name(LK_CACHE_TYPE_COUNT), nullptr);
    EXPECT_NE(std::string(lk_cpu_description()).find(" | "), std::string::npos);
}

}  // namespace
}  // namespace lk
