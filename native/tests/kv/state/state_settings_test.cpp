// A saved state is valid only for the settings that computed its keys: file, metadata overrides, tensors.
#include <cstring>
#include <filesystem>

#include "runtime/context.h"
#include "support/gguf_writer.h"
#include "support/model_helpers.h"
#include "support/tiny_llama.h"

namespace lk {
namespace {

using Overrides = std::vector<lk_metadata_override>;

lk_metadata_override integer(const char* key, int64_t value) {
    return {key, nullptr, value, 0, LK_VALUE_INT64};
}
lk_metadata_override real(const char* key, double value) {
    return {key, nullptr, 0, value, LK_VALUE_FLOAT64};
}
lk_metadata_override text(const char* key, const char* value) {
    return {key, value, 0, 0, LK_VALUE_STRING};
}

// A model with a context, through the C interface.
class Loaded {
public:
    explicit Loaded(const std::string& name, const Overrides& overrides = {}) {
        const std::string path =
            std::filesystem::path(name).is_absolute() ? name : std::string(LK_GOLDEN_DIR) + "/" + name + ".gguf";
        lk_model_params params;
        lk_model_params_default(&params);
        params.n_overrides = static_cast<uint32_t>(overrides.size());
        params.overrides = overrides.data();
        EXPECT_EQ(lk_model_load(path.c_str(), &params, &model_), LK_OK) << lk_last_error();
        lk_context_params of_context;
        lk_context_params_default(&of_context);
        of_context.n_ctx = 512;
        of_context.n_threads = 1;
        EXPECT_EQ(lk_context_create(model_, &of_context, &context_), LK_OK) << lk_last_error();
    }
    ~Loaded() {
        lk_context_free(context_);
        lk_model_free(model_);
    }
    Loaded(const Loaded&) = delete;
    Loaded& operator=(const Loaded&) = delete;

    std::vector<uint8_t> state() {
        const std::vector<int32_t> tokens(200, 7);
        const lk_batch batch{tokens.data(), nullptr, nullptr, nullptr, nullptr, static_cast<uint32_t>(tokens.size())};
        EXPECT_EQ(lk_decode(context_, &batch), LK_OK) << lk_last_error();
        return save();
    }
    std::vector<uint8_t> save() {
        uint64_t size = 0;
        EXPECT_EQ(lk_seq_state_size(context_, 0, &size), LK_OK) << lk_last_error();
        std::vector<uint8_t> bytes(size);
        EXPECT_EQ(lk_seq_state_get(context_, 0, bytes.data(), size), LK_OK) << lk_last_error();
        return bytes;
    }
    lk_status load(const std::vector<uint8_t>& bytes) {
        return lk_seq_state_set(context_, 0, bytes.data(), bytes.size());
    }

private:
    lk_model* model_ = nullptr;
    lk_context* context_ = nullptr;
};

void expect_refused(const std::string& model, const Overrides& saved, const Overrides& here,
                    const std::vector<std::string>& parts) {
    const std::vector<uint8_t> state = Loaded(model, saved).state();
    Loaded other(model, here);
    const std::vector<uint8_t> before = other.save();
    SCOPED_TRACE(parts[0]);
    test::expect_failure(other.load(state), LK_BAD_STATE, parts);
    EXPECT_EQ(other.save(), before);
    Loaded same(model, saved);
    EXPECT_EQ(same.load(state), LK_OK) << lk_last_error();
    EXPECT_EQ(same.save(), state);
}

TEST(StateSettings, EveryOneIsNamedWithBothValues) {
    expect_refused("llama", {}, {real("llama.rope.freq_base", 500000)}, {"rope.freq_base", "10000 in", "500000 here"});
    expect_refused("llama", {real("llama.rope.freq_base", 123)}, {}, {"rope.freq_base", "123 in", "10000 here"});
    expect_refused("llama", {}, {text("llama.rope.scaling.type", "linear"), real("llama.rope.scaling.factor", 4)},
                   {"rope.scaling.type", "\"none\" in", "\"linear\" here", "rope.scaling.factor", "1 in", "4 here"});
    expect_refused("llama", {}, {real("llama.rope.scale_linear", 2)}, {"rope.scaling.type", "linear"});
    expect_refused("llama-linear", {}, {real("llama.rope.scaling.factor", 2)},
                   {"rope.scaling.factor", "4 in", "2 here"});
    const char* const yarn = "llama-yarn";
    expect_refused(yarn, {}, {text("llama.rope.scaling.type", "none")}, {"rope.scaling.type", "\"yarn\" in"});
    expect_refused(yarn, {}, {integer("llama.rope.scaling.original_context_length", 64)},
                   {"original_context", "32 in", "64 here"});
    expect_refused(yarn, {}, {real("llama.rope.scaling.attn_factor", 1.5)}, {"attn_factor", "1 in", "1.5 here"});
    expect_refused(yarn, {}, {real("llama.rope.scaling.yarn_beta_fast", 16)}, {"beta_fast", "32 in", "16 here"});
    expect_refused(yarn, {}, {real("llama.rope.scaling.yarn_beta_slow", 2)}, {"beta_slow", "1 in", "2 here"});
    expect_refused("llama", {}, {integer("llama.rope.dimension_count", 8)},
                   {"rope.dimension_count", "16 in", "8 here"});
    expect_refused("mistral", {}, {integer("llama.attention.sliding_window", 100)},
                   {"attention.sliding_window", "9 in", "100 here"});
    expect_refused("llama", {}, {real("llama.attention.layer_norm_rms_epsilon", 0.5)},
                   {"layer_norm_rms_epsilon", "0.5 here"});
    expect_refused("falcon-7b", {}, {real("falcon.attention.layer_norm_epsilon", 0.5)},
                   {"attention.layer_norm_epsilon", "0.5 here"});
    expect_refused("llama", {}, {{"general.synthetic", nullptr, 1, 0, LK_VALUE_BOOL}},
                   {"general.synthetic", "0 in", "1 here"});
}

// Also with reused memory: a state contains no undefined bytes.
TEST(StateSettings, TheSameSequenceGivesTheSameBytes) {
    const std::vector<uint8_t> state = Loaded("llama").state();
    for (int i = 0; i < 3; ++i) {
        Loaded again("llama");
        EXPECT_EQ(again.state(), state);
        EXPECT_EQ(again.save(), state);
    }
}

TEST(StateSettings, OtherWeightsAreRefused) {
    const std::vector<uint8_t> state = Loaded("llama").state();
    Loaded other("llama-linear");
    test::expect_failure(other.load(state), LK_BAD_STATE, {"another model", "weights"});
    Loaded falcon("falcon-7b");
    test::expect_failure(falcon.load(state), LK_BAD_STATE,
                         {"another model", "general.architecture", "llama", "falcon"});

    // Changes one number in a sample of a large tensor, and one in a small tensor.
    const std::vector<uint8_t> bytes = test::tiny_llama(32);
    const test::TemporaryFile file("weights.gguf", bytes);
    const std::vector<uint8_t> tiny = Loaded(file.path()).state();
    for (const size_t from_end : {size_t{1}, size_t{64 * 4 + 64 * 64 * 4}}) {
        std::vector<uint8_t> changed = bytes;
        changed[changed.size() - from_end] ^= 1;
        const test::TemporaryFile another("changed.gguf", changed);
        Loaded model(another.path());
        test::expect_failure(model.load(tiny), LK_BAD_STATE, {"weights"});
    }
}

// Llama 3.1 and 3.2 differ mainly in their divisors, and the first ones are equal.
TEST(StateSettings, DividedFrequenciesAreRefusedByTensor) {
    const auto with_divisors = [](float last) {
        test::GgufWriter::Bytes divisors;
        for (int i = 0; i < 64; ++i) {
            test::GgufWriter::append(divisors, i == 63 ? last : 1.0f);
        }
        return test::tiny_llama(128, 1,
                                [&](test::GgufWriter& file) { file.tensor("rope_freqs.weight", 0, {64}, divisors); });
    };
    const test::TemporaryFile a("divisors-a.gguf", with_divisors(8));
    const test::TemporaryFile b("divisors-b.gguf", with_divisors(32));
    const std::vector<uint8_t> state = Loaded(a.path()).state();
    Loaded other(b.path());
    test::expect_failure(other.load(state), LK_BAD_STATE, {"rope_freqs.weight"});
}

TEST(StateSettings, AnOlderFormatIsRefusedInPlainWords) {
    Loaded model("llama");
    const std::vector<uint8_t> current = model.state();
    const std::vector<uint8_t> before = model.save();
    for (const uint32_t version : {3u, 5u, 6u}) {  // 5: recipes had editions; 6: the checksum had one lane
        std::vector<uint8_t> state = current;
        std::memcpy(state.data() + 4, &version, sizeof(version));
        const std::string name = "format version " + std::to_string(version);
        test::expect_failure(model.load(state), LK_BAD_STATE,
                             {name, "reads version 7", "another release", "save it again"});
        state.resize(60);  // shorter than the current header
        test::expect_failure(model.load(state), LK_BAD_STATE, {name});
    }
    EXPECT_EQ(model.save(), before);
}

}  // namespace
}  // namespace lk
