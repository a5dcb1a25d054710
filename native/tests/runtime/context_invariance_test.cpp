// Logits and cache of a sequence are a function of its tokens alone, through a whole model: reading token by token
// equals reading in calls of any size, beside other sequences, in a fork and after a saved state. The paper's types are
// left out: their prefill attends to the exact rows of its call.
#include <random>

#include "support/failed_call.h"
#include "support/tiny_model.h"

namespace lk::test {

namespace {

constexpr int kTokens = 700;
constexpr lk_cache_type kCaches[] = {LK_CACHE_F16,   LK_CACHE_Q8_0,  LK_CACHE_Q4_0, LK_CACHE_KIVI4,
                                     LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_F32,  LK_CACHE_BF16,
                                     LK_CACHE_Q5_1,  LK_CACHE_Q5_0,  LK_CACHE_Q4_1, LK_CACHE_IQ4_NL};

// Kernel tables; those that the processor lacks are left out.
constexpr const char* kTables[] = {"portable", "avx2", "vnni", "neon", "dotprod"};

lk_context_params params_of(lk_cache_type cache, uint32_t n_threads, uint32_t n_ubatch = 512) {
    lk_context_params params = small_params(cache);
    params.n_threads = n_threads;
    params.n_ubatch = n_ubatch;
    params.n_ctx = 3000;
    params.cache = {cache, cache, 0, 0, -1, 0, LK_ROWS_OWN, 0, 0};
    return params;
}

// Reads tokens [begin, end) of the text into a sequence in one call, beside `other` tokens of sequence 2. Appends the
// logits of every token to `logits`.
void read(TestContext& context, int32_t seq, int begin, int end, Logits& logits, int other = 0) {
    std::vector<int32_t> tokens(other, 5);
    std::vector<int32_t> seqs(other, 2);
    for (int i = begin; i < end; ++i) {
        tokens.push_back(TinyModel::token(i));
        seqs.push_back(seq);
    }
    const std::vector<uint8_t> outputs(tokens.size(), 1);
    const lk_batch batch{tokens.data(), nullptr,        seqs.data(),
                         nullptr,       outputs.data(), static_cast<uint32_t>(tokens.size())};
    ASSERT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
    for (size_t i = other; i < tokens.size(); ++i) {
        float* row = nullptr;
        ASSERT_EQ(lk_logits(context.get(), static_cast<uint32_t>(i), &row), LK_OK) << lk_last_error();
        logits.insert(logits.end(), row, row + TinyModel::kVocab);
    }
}

// Reads n tokens in calls of `size`; 0: of random sizes.
Logits read_all(TestContext& context, int n, int size, int other = 0) {
    std::mt19937 random(11);
    Logits logits;
    for (int at = 0; at < n;) {
        const int step = std::min(n - at, size > 0 ? size : 1 + static_cast<int>(random() % 90));
        read(context, 0, at, at + step, logits, other);
        at += step;
    }
    return logits;
}

// Position of the first token whose logits differ; -1: none.
int first_difference(const Logits& a, const Logits& b) {
    const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
    return a == b ? -1 : static_cast<int>(at) / TinyModel::kVocab;
}

class ContextInvariance : public testing::TestWithParam<lk_cache_type> {
protected:
    // Runs body() with every table.
    template <class Body>
    void for_each_table(Body body) {
        for (const char* const table : kTables) {
            for (const cpu::NamedKernels& known : cpu::available_kernels()) {
                if (std::string(table) == known.id) {
                    SCOPED_TRACE(table);
                    const TableInUse in_use(table);
                    body();
                }
            }
        }
    }

    LoadedModel model_{TinyModel().bytes()};
};

TEST_P(ContextInvariance, Cuts) {
    for_each_table([&] {
        TestContext one_by_one(params_of(GetParam(), 1), model_.get());
        const Logits expected = read_all(one_by_one, kTokens, 1);
        const std::vector<uint8_t> state = state_of(one_by_one, 0);
        for (const int size : {3, 32, 128, 512, 1000, 0}) {
            TestContext context(params_of(GetParam(), 2), model_.get());
            EXPECT_EQ(first_difference(read_all(context, kTokens, size), expected), -1) << "calls of " << size;
            EXPECT_EQ(state_of(context, 0), state) << "calls of " << size;
        }
        for (const int n_ubatch : {1, 37}) {
            TestContext context(params_of(GetParam(), 1, n_ubatch), model_.get());
            EXPECT_EQ(first_difference(read_all(context, kTokens, kTokens), expected), -1) << "passes of " << n_ubatch;
            EXPECT_EQ(state_of(context, 0), state) << "passes of " << n_ubatch;
        }
        TestContext together(params_of(GetParam(), 2, 61), model_.get());
        EXPECT_EQ(first_difference(read_all(together, kTokens, 100, 9), expected), -1) << "beside another sequence";
        EXPECT_EQ(state_of(together, 0), state) << "beside another sequence";
    });
}

TEST_P(ContextInvariance, ForksAndSavedStates) {
    for_each_table([&] {
        TestContext one_by_one(params_of(GetParam(), 1), model_.get());
        const Logits expected = read_all(one_by_one, kTokens, 1);
        TestContext context(params_of(GetParam(), 2), model_.get());
        Logits logits;
        const int fork = kTokens / 3;
        const int save = kTokens / 2;
        read(context, 0, 0, fork, logits);
        ASSERT_EQ(lk_seq_copy(context.get(), 0, 1), LK_OK) << lk_last_error();
        Logits dropped;
        read(context, 0, 3, 90, dropped);  // the fork's origin goes elsewhere
        read(context, 1, fork, save, logits);
        const std::vector<uint8_t> saved = state_of(context, 1);
        TestContext restored(params_of(GetParam(), 1, 64), model_.get());
        ASSERT_EQ(lk_seq_state_set(restored.get(), 0, saved.data(), saved.size()), LK_OK) << lk_last_error();
        read(restored, 0, save, kTokens, logits);
        EXPECT_EQ(first_difference(logits, expected), -1);
        EXPECT_EQ(state_of(restored, 0), state_of(one_by_one, 0));
    });
}

INSTANTIATE_TEST_SUITE_P(Types, ContextInvariance, testing::ValuesIn(kCaches),
                         [](const auto& info) { return std::string(lk_cache_type_name(info.param)); });

}  // namespace

}  // namespace lk::test
