// Sampling: filters, frequencies, and sampling through a context.
#include "backend/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "model_helpers.h"

namespace lk {
namespace {

// Fraction of samples per token, for n evenly spaced draws.
std::map<int, double> drawn(const std::vector<float>& logits, const lk_sampling& sampling, int n = 10000) {
    std::map<int, double> parts;
    for (int i = 0; i < n; ++i) {
        parts[sample_row(logits.data(), static_cast<int>(logits.size()), sampling, (i + 0.5) / n)] += 1.0 / n;
    }
    return parts;
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

TEST(Sampling, DrawsByProbability) {
    const auto parts = drawn(kLogits, {1, 0, 1, 0, 0});
    EXPECT_NEAR(parts.at(0), 0.1, 1e-3);
    EXPECT_NEAR(parts.at(1), 0.4, 1e-3);
    EXPECT_NEAR(parts.at(2), 0.2, 1e-3);
    EXPECT_NEAR(parts.at(3), 0.3, 1e-3);
}

TEST(Sampling, TheTemperatureSharpens) {
    // Temperature 0.5 squares the probabilities; their sum is 0.3.
    const auto parts = drawn(kLogits, {0.5f, 0, 1, 0, 0});
    EXPECT_NEAR(parts.at(0), 0.01 / 0.3, 1e-3);
    EXPECT_NEAR(parts.at(1), 0.16 / 0.3, 1e-3);
    EXPECT_EQ(drawn(kLogits, {0, 0, 1, 0, 0}).at(1), drawn(kLogits, {0, 0, 1, 0, 0}).begin()->second);
    EXPECT_EQ(drawn({2, 5, 5, 1}, {0, 0, 1, 0, 0}).size(), 1u);
    EXPECT_EQ(drawn({2, 5, 5, 1}, {0, 0, 1, 0, 0}).begin()->first, 1) << "the first of equal logits";
}

TEST(Sampling, FiltersKeepWhatTheySay) {
    const auto two = drawn(kLogits, {1, 2, 1, 0, 0});
    EXPECT_EQ(two.size(), 2u);
    EXPECT_NEAR(two.at(1), 4.0 / 7, 1e-3);
    EXPECT_NEAR(two.at(3), 3.0 / 7, 1e-3);
    // 0.4 is less than top_p 0.5; 0.4 + 0.3 is enough.
    const auto half = drawn(kLogits, {1, 0, 0.5f, 0, 0});
    EXPECT_EQ(half.size(), 2u);
    EXPECT_TRUE(half.count(1) == 1 && half.count(3) == 1);
    // Of the two tokens that top_k keeps, 0.4 / 0.7 exceeds top_p.
    EXPECT_EQ(drawn(kLogits, {1, 2, 0.5f, 0, 0}).size(), 1u);
    // min_p keeps probabilities of at least 0.6 * 0.4.
    EXPECT_EQ(drawn(kLogits, {1, 0, 1, 0.6f, 0}).size(), 2u);
    EXPECT_EQ(drawn(kLogits, {9, 1, 1, 0, 0}).size(), 1u);
}

TEST(Sampling, DrawsAreEvenAndRepeatable) {
    double mean = 0;
    for (uint32_t i = 0; i < 10000; ++i) {
        const double draw = uniform_draw(5, static_cast<int32_t>(i % 7), i);
        ASSERT_GE(draw, 0);
        ASSERT_LT(draw, 1);
        mean += draw / 10000;
    }
    EXPECT_NEAR(mean, 0.5, 0.01);
    EXPECT_EQ(uniform_draw(5, 1, 2), uniform_draw(5, 1, 2));
    EXPECT_NE(uniform_draw(5, 1, 2), uniform_draw(5, 2, 1));
    EXPECT_NE(uniform_draw(5, 1, 2), uniform_draw(6, 1, 2));
}

TEST(Sampling, AContextDrawsWhatItsLogitsSay) {
    test::TestContext draws(test::small_params());
    test::TestContext logits(test::small_params());
    const std::vector<int32_t> tokens = test::text_tokens(30);
    // Outputs of two sequences; sequence 1 comes first in the batch.
    std::vector<int32_t> seqs(30);
    std::vector<uint8_t> outputs(30, 0);
    for (int i = 0; i < 30; ++i) {
        seqs[i] = i < 12 ? 1 : 0;
    }
    outputs[5] = outputs[11] = outputs[29] = 1;
    const lk_batch batch{tokens.data(), nullptr, seqs.data(), nullptr, outputs.data(), 30};
    ASSERT_EQ(lk_decode(logits.get(), &batch), LK_OK) << lk_last_error();
    for (const lk_sampling& sampling : {lk_sampling{0, 0, 1, 0, 0}, lk_sampling{1.5f, 40, 0.95f, 0.01f, 9}}) {
        ASSERT_EQ(lk_seq_truncate(draws.get(), 0, 0), LK_OK);
        ASSERT_EQ(lk_seq_truncate(draws.get(), 1, 0), LK_OK);
        int32_t sampled[3] = {-1, -1, -1};
        ASSERT_EQ(lk_decode_sample(draws.get(), &batch, &sampling, sampled), LK_OK) << lk_last_error();
        const std::pair<int, int> expected[] = {{5, 6}, {11, 12}, {29, 18}};  // row, and the position after its token
        for (int i = 0; i < 3; ++i) {
            const test::Logits row = logits.logits(expected[i].first);
            const double draw = uniform_draw(sampling.seed, i < 2 ? 1 : 0, expected[i].second);
            EXPECT_EQ(sampled[i], sample_row(row.data(), static_cast<int>(row.size()), sampling, draw)) << i;
        }
    }
    float* row = nullptr;
    test::expect_failure(lk_logits(draws.get(), 29, &row), LK_INVALID_ARGUMENT, {"sampled tokens"});
}

TEST(Sampling, NamesWhatIsOutOfRange) {
    test::TestContext context(test::small_params());
    const int32_t token = 1;
    const lk_batch batch{&token, nullptr, nullptr, nullptr, nullptr, 1};
    int32_t sampled = 0;
    const auto fails = [&](const lk_sampling& sampling, const char* name) {
        test::expect_failure(lk_decode_sample(context.get(), &batch, &sampling, &sampled), LK_INVALID_ARGUMENT, {name});
    };
    fails({-1, 0, 1, 0, 0}, "temperature");
    fails({std::nanf(""), 0, 1, 0, 0}, "temperature");
    fails({1, 0, 0, 0, 0}, "top_p");
    fails({1, 0, 1, 2, 0}, "min_p");
    EXPECT_EQ(context.length(), 0u);
}

}  // namespace
}  // namespace lk
