// Metadata overrides, and models loaded with vocab_only.
#include <cstdio>
#include <cstring>
#include <fstream>

#include "support/gguf_writer.h"
#include "support/model_helpers.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

using test::expect_failure;

lk_metadata_override integer(const char* key, int64_t value) {
    return {key, nullptr, value, 0, LK_VALUE_INT64};
}
lk_metadata_override real(const char* key, double value) {
    return {key, nullptr, 0, value, LK_VALUE_FLOAT64};
}
lk_metadata_override text(const char* key, const char* value) {
    return {key, value, 0, 0, LK_VALUE_STRING};
}
lk_metadata_override truth(const char* key, bool value) {
    return {key, nullptr, value ? 1 : 0, 0, LK_VALUE_BOOL};
}

class Overrides : public testing::Test {
protected:
    ~Overrides() override { lk_model_free(model_); }

    lk_status load(const std::vector<lk_metadata_override>& overrides, bool vocab_only = false,
                   const char* path = test::demo_model_path()) {
        lk_model_free(model_);
        model_ = nullptr;
        lk_model_params params;
        lk_model_params_default(&params);
        params.vocab_only = vocab_only ? 1 : 0;
        params.n_overrides = static_cast<uint32_t>(overrides.size());
        params.overrides = overrides.data();
        return lk_model_load(path, &params, &model_);
    }

    lk_gguf_entry entry(const char* key) const {
        lk_gguf_entry found{};
        int32_t there = 0;
        EXPECT_EQ(lk_gguf_find(lk_model_gguf(model_), key, &found, &there), LK_OK) << lk_last_error();
        EXPECT_EQ(there, 1) << key;
        return found;
    }

    lk_model* model_ = nullptr;
};

TEST_F(Overrides, AreReadInsteadOfTheFiles) {
    ASSERT_EQ(
        load({integer("llama.context_length", 77), real("llama.rope.freq_base", 123.5), text("general.name", "another"),
              truth("test.new", true), integer("test.twice", 1), integer("test.twice", 2)}),
        LK_OK)
        << lk_last_error();
    lk_model_info info;
    ASSERT_EQ(lk_model_describe(model_, &info), LK_OK);
    EXPECT_EQ(info.n_ctx_train, 77u);
    EXPECT_EQ(info.rope_freq_base, 123.5f);
    const lk_gguf_entry name = entry("general.name");
    EXPECT_EQ(std::string(static_cast<const char*>(name.data), name.count), "another");
    EXPECT_EQ(entry("test.new").type, LK_VALUE_BOOL);
    EXPECT_EQ(*static_cast<const uint8_t*>(entry("test.new").data), 1);
    int64_t twice = 0;
    std::memcpy(&twice, entry("test.twice").data, sizeof(twice));
    EXPECT_EQ(twice, 2);

    // Overrides change the logits.
    test::TestContext other(test::small_params(LK_CACHE_F16), model_);
    test::TestContext usual(test::small_params(LK_CACHE_F16));
    EXPECT_GT(test::distance(other.run(test::text_tokens(40)), usual.run(test::text_tokens(40))), 0.1);
}

TEST_F(Overrides, AreCheckedAsTheFilesEntriesAre) {
    expect_failure(load({integer("llama.block_count", 0)}), LK_BAD_FILE, {"llama.block_count", "is 0"});
    expect_failure(load({text("llama.embedding_length", "512")}), LK_BAD_FILE, {"llama.embedding_length"});
    expect_failure(load({integer("", 1)}), LK_INVALID_ARGUMENT, {"no key"});
    expect_failure(load({integer(nullptr, 1)}), LK_INVALID_ARGUMENT, {"no key"});
    expect_failure(load({text("a.text", nullptr)}), LK_INVALID_ARGUMENT, {"a.text", "its text is NULL"});
    expect_failure(load({{"an.array", nullptr, 0, 0, LK_VALUE_ARRAY}}), LK_INVALID_ARGUMENT, {"an.array", "BOOL"});
    EXPECT_EQ(model_, nullptr);
}

TEST_F(Overrides, AVocabularyIsLoadedWithoutWeights) {
    ASSERT_EQ(load({}, true), LK_OK) << lk_last_error();
    lk_model_info info;
    ASSERT_EQ(lk_model_describe(model_, &info), LK_OK);
    EXPECT_EQ(info.n_vocab, 16384u);
    EXPECT_EQ(info.n_embd, 512u);
    EXPECT_EQ(info.n_ctx_train, 4096u);
    EXPECT_EQ(entry("tokenizer.ggml.tokens").count, 16384u);
    lk_context* context = nullptr;
    const lk_context_params params = test::small_params();
    expect_failure(lk_context_create(model_, &params, &context), LK_UNSUPPORTED, {"without weights", "vocab_only"});
    EXPECT_EQ(context, nullptr);
}

TEST_F(Overrides, AFileOfAnyArchitectureHasAVocabulary) {
    const test::TemporaryFile file("vocabulary.gguf",
                                   test::GgufWriter().string("general.architecture", "mamba").bytes());
    EXPECT_EQ(load({}, false, file.path().c_str()), LK_UNSUPPORTED);
    EXPECT_EQ(load({}, true, file.path().c_str()), LK_OK) << lk_last_error();
}

}  // namespace
}  // namespace lk
