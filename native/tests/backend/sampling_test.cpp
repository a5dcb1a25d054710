// Sampling: filters, frequencies, and sampling through a context.
#include "backend/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "support/model_helpers.h"
#include "support/samplings.h"

namespace lk {
namespace {

// Fraction of samples per token, for n evenly spaced draws.
std::map<int, double> drawn(std::vector<float> logits, lk_sampling sampling, int n = 10000) {
    std::map<int, double> parts;
    for (int i = 0; i < n; ++i) {
        sampling.draw = (i + 0.5) / n;
        parts[sample_row(logits.data(), static_cast<int>(logits.size()), sampling)] += 1.0 / n;
    }
    return parts;
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

TEST(Sampling, DrawsByProbability) {
    const auto parts = drawn(kLogits, test::sampling_of(1));
    EXPECT_NEAR(parts.at(0), 0.1, 1e-3);
    EXPECT_NEAR(parts.at(1), 0.4, 1e-3);
    EXPECT_NEAR(parts.at(2), 0.2, 1e-3);
    EXPECT_NEAR(parts.at(3), 0.3, 1e-3);
}

TEST(Sampling, TheTemperatureSharpens) {
    // Temperature 0.5 squares the probabilities; their sum is 0.3.
    const auto parts = drawn(kLogits, test::sampling_of(0.5f));
    EXPECT_NEAR(parts.at(0), 0.01 / 0.3, 1e-3);
    EXPECT_NEAR(parts.at(1), 0.16 / 0.3, 1e-3);
    EXPECT_EQ(drawn(kLogits, test::sampling_of(0)).at(1), drawn(kLogits, test::sampling_of(0)).begin()->second);
    EXPECT_EQ(drawn({2, 5, 5, 1}, test::sampling_of(0)).size(), 1u);
    EXPECT_EQ(drawn({2, 5, 5, 1}, test::sampling_of(0)).begin()->first, 1) << "the first of equal logits";
}

TEST(Sampling, FiltersKeepWhatTheySay) {
    const auto two = drawn(kLogits, test::sampling_of(1, 2));
    EXPECT_EQ(two.size(), 2u);
    EXPECT_NEAR(two.at(1), 4.0 / 7, 1e-3);
    EXPECT_NEAR(two.at(3), 3.0 / 7, 1e-3);
    // 0.4 is less than top_p 0.5; 0.4 + 0.3 is enough.
    const auto half = drawn(kLogits, test::sampling_of(1, 0, 0.5f));
    EXPECT_EQ(half.size(), 2u);
    EXPECT_TRUE(half.count(1) == 1 && half.count(3) == 1);
    // Of the two tokens that top_k keeps, 0.4 / 0.7 exceeds top_p.
    EXPECT_EQ(drawn(kLogits, test::sampling_of(1, 2, 0.5f)).size(), 1u);
    // min_p keeps probabilities of at least 0.6 * 0.4.
    EXPECT_EQ(drawn(kLogits, test::sampling_of(1, 0, 1, 0.6f)).size(), 2u);
    EXPECT_EQ(drawn(kLogits, test::sampling_of(9, 1)).size(), 1u);
}

// Of equal logits, the lower tokens are kept.
TEST(Sampling, FiltersCutTies) {
    const std::vector<float> logits{1, 3, 2, 2, 2, 1};
    const auto three = drawn(logits, test::sampling_of(1, 3));
    EXPECT_EQ(three.size(), 3u);
    EXPECT_TRUE(three.count(1) == 1 && three.count(2) == 1 && three.count(3) == 1);
    // exp(1) / (exp(1) + 3 + 2 exp(-1)) = 0.42; two more tokens of 0.155 reach 0.7.
    const auto most = drawn(logits, test::sampling_of(1, 0, 0.7f));
    EXPECT_EQ(most.size(), 3u);
    EXPECT_TRUE(most.count(2) == 1 && most.count(3) == 1);
}

// The order of tokens under a draw is part of the rule: a seed must give the same text wherever tokens are sampled.
TEST(Sampling, DrawsInDescendingOrderWhereAFilterSorts) {
    std::vector<float> logits = kLogits;  // 0.1, 0.4, 0.2, 0.3
    const auto at = [&](lk_sampling sampling, double draw) {
        sampling.draw = draw;
        return sample_row(logits.data(), 4, sampling);
    };
    for (const lk_sampling& sorts : {test::sampling_of(1, 3), test::sampling_of(1, 0, 0.999f)}) {
        EXPECT_EQ(at(sorts, 0.01), 1);
        EXPECT_EQ(at(sorts, 0.6), 3);
        EXPECT_EQ(at(sorts, 0.8), 2);
    }
    for (const lk_sampling& keeps : {test::sampling_of(1), test::sampling_of(1, 4, 1, 0.01f)}) {
        EXPECT_EQ(at(keeps, 0.05), 0);
        EXPECT_EQ(at(keeps, 0.3), 1);
        EXPECT_EQ(at(keeps, 0.6), 2);
        EXPECT_EQ(at(keeps, 0.9), 3);
    }
}

// The most probable token after penalties, and all its rivals, in double precision.
TEST(Sampling, PenaltiesFollowTheirFormula) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal(0, 2);
    for (int round = 0; round < 2000; ++round) {
        std::vector<float> logits(50);
        std::generate(logits.begin(), logits.end(), [&] { return normal(random); });
        std::vector<lk_token_count> recent;
        for (int32_t token = static_cast<int32_t>(random() % 3); token < 50; token += 1 + random() % 4) {
            recent.push_back({token, 1 + static_cast<uint32_t>(random() % 5)});
        }
        lk_sampling s = test::sampling_of(0);
        s.repeat_penalty = round % 3 == 0 ? 0 : 0.5f + static_cast<float>(random() % 20) / 10;
        s.frequency_penalty = round % 4 == 0 ? 0 : normal(random);
        s.presence_penalty = round % 5 == 0 ? 0 : normal(random);
        s.recent = recent.data();
        s.n_recent = static_cast<uint32_t>(recent.size());
        std::vector<double> expected(logits.begin(), logits.end());
        for (const lk_token_count& t : recent) {
            const double repeat = s.repeat_penalty == 0 ? 1 : s.repeat_penalty;
            double& x = expected[t.token];
            x = x > 0 ? x / repeat : x * repeat;
            x -= t.count * static_cast<double>(s.frequency_penalty) + s.presence_penalty;
        }
        const int32_t token = sample_row(logits.data(), 50, s);
        for (int i = 0; i < 50; ++i) {
            ASSERT_NEAR(logits[i], expected[i], 1e-5 * (1 + std::abs(expected[i]))) << "round " << round;
            ASSERT_GE(expected[token], expected[i] - 1e-4) << "round " << round;
        }
    }
}

// Rows of two sequences, each with its own parameters; some keep their logits.
TEST(Sampling, EveryRowHasItsOwnParameters) {
    test::TestContext draws(test::small_params());
    test::TestContext logits(test::small_params());
    const std::vector<int32_t> tokens = test::text_tokens(30);
    std::vector<int32_t> seqs(30);
    std::vector<uint8_t> outputs(30, 0);
    for (int i = 0; i < 30; ++i) {
        seqs[i] = i < 12 ? 1 : 0;  // sequence 1 comes first in the batch
    }
    const std::vector<int> rows{3, 5, 8, 11, 20, 27, 29};
    for (const int row : rows) {
        outputs[row] = 1;
    }
    const lk_batch batch{tokens.data(), nullptr, seqs.data(), nullptr, outputs.data(), 30};
    ASSERT_EQ(lk_decode(logits.get(), &batch), LK_OK) << lk_last_error();
    const std::vector<lk_token_count> recent{{tokens[2], 3}, {tokens[2] + 1, 1}};
    for (int seed = 0; seed < 20; ++seed) {
        ASSERT_EQ(lk_seq_truncate(draws.get(), 0, 0), LK_OK);
        ASSERT_EQ(lk_seq_truncate(draws.get(), 1, 0), LK_OK);
        std::vector<lk_sampling> samplings{
            test::sampling_of(0),         test::sampling_of(1.5f, 40, 0.95f, 0.01f),         test::kept_logits(),
            test::sampling_of(3),         test::penalized(test::sampling_of(0), 2, 1, 9, 2), test::kept_logits(),
            test::sampling_of(1, 0, 0.9f)};
        for (size_t i = 0; i < samplings.size(); ++i) {
            samplings[i].draw = (seed + 0.5) / 20;
            samplings[i].recent = samplings[i].n_recent > 0 ? recent.data() : nullptr;
        }
        std::rotate(samplings.begin(), samplings.begin() + seed % 7, samplings.end());
        std::vector<int32_t> sampled(7, -7);
        ASSERT_EQ(lk_decode_sample(draws.get(), &batch, samplings.data(), 7, sampled.data()), LK_OK) << lk_last_error();
        for (int i = 0; i < 7; ++i) {
            SCOPED_TRACE(i);
            test::Logits row = logits.logits(rows[i]);
            float* kept = nullptr;
            if (samplings[i].keep_logits != 0) {
                EXPECT_EQ(sampled[i], -1);
                EXPECT_EQ(draws.logits(rows[i]), row);
                continue;
            }
            EXPECT_EQ(sampled[i], sample_row(row.data(), static_cast<int>(row.size()), samplings[i]));
            test::expect_failure(lk_logits(draws.get(), rows[i], &kept), LK_INVALID_ARGUMENT,
                                 {"sampled tokens", "keep_logits"});
        }
        float* row = nullptr;
        test::expect_failure(lk_logits(draws.get(), 4, &row), LK_INVALID_ARGUMENT, {"did not request"});
    }
}

// Outputs of one sequence in several passes: the kept rows of the later ones come after those of the first.
TEST(Sampling, KeptLogitsOfSeveralPasses) {
    lk_context_params params = test::small_params();
    params.n_ubatch = 16;
    test::TestContext draws(params);
    test::TestContext logits(params);
    const std::vector<int32_t> tokens = test::text_tokens(40);
    const std::vector<uint8_t> outputs(40, 1);
    const lk_batch batch{tokens.data(), nullptr, nullptr, nullptr, outputs.data(), 40};
    std::vector<lk_sampling> samplings(40, test::sampling_of(0));
    for (int i = 0; i < 40; i += 3) {
        samplings[i].keep_logits = 1;
    }
    std::vector<int32_t> sampled(40);
    ASSERT_EQ(lk_decode(logits.get(), &batch), LK_OK) << lk_last_error();
    ASSERT_EQ(lk_decode_sample(draws.get(), &batch, samplings.data(), 40, sampled.data()), LK_OK) << lk_last_error();
    for (int i = 0; i < 40; ++i) {
        test::Logits row = logits.logits(i);
        if (i % 3 == 0) {
            EXPECT_EQ(draws.logits(i), row) << i;
        } else {
            EXPECT_EQ(sampled[i], sample_row(row.data(), static_cast<int>(row.size()), samplings[i])) << i;
        }
    }
}

TEST(Sampling, NamesTheRowAndWhatIsOutOfRange) {
    test::TestContext context(test::small_params());
    const std::vector<int32_t> text{1, 2};
    const std::vector<uint8_t> outputs{1, 1};
    const lk_batch batch{text.data(), nullptr, nullptr, nullptr, outputs.data(), 2};
    int32_t sampled[2] = {};
    const auto fails = [&](const lk_sampling& sampling, const char* name) {
        const lk_sampling both[] = {test::sampling_of(0), sampling};
        test::expect_failure(lk_decode_sample(context.get(), &batch, both, 2, sampled), LK_INVALID_ARGUMENT,
                             {"sampling 1", name});
    };
    fails(test::sampling_of(-1), "temperature");
    fails(test::sampling_of(std::nanf("")), "temperature");
    fails(test::sampling_of(1, 0, 0), "top_p");
    fails(test::sampling_of(1, 0, 1, 2), "min_p");
    fails(test::penalized(test::sampling_of(1), -1, 0, 0), "repeat_penalty");
    fails(test::penalized(test::sampling_of(1), 1, std::nanf(""), 0), "frequency_penalty");
    fails(test::penalized(test::sampling_of(1), 1, 0, INFINITY), "presence_penalty");
    fails(test::drawn_at(test::sampling_of(1), 1), "draw");
    fails(test::drawn_at(test::sampling_of(1), std::nan("")), "draw");
    fails(test::penalized(test::sampling_of(1), 1, 0, 0, 1), "recent");
    for (const auto& [recent, text_of] : std::vector<std::pair<std::vector<lk_token_count>, const char*>>{
             {{{3, 1}, {-1, 1}}, "recent[1] is token -1"},
             {{{1 << 30, 1}, {5, 1}}, "recent[0] is token"},
             {{{5, 1}, {5, 1}}, "must ascend"},
             {{{3, 1}, {5, 0}}, "count of 0"}}) {
        fails(test::penalized(test::sampling_of(1), 1, 0, 0, 2, recent.data()), text_of);
    }
    const lk_sampling one = test::sampling_of(0);
    test::expect_failure(lk_decode_sample(context.get(), &batch, &one, 1, sampled), LK_INVALID_ARGUMENT,
                         {"2 outputs", "1 samplings"});
    test::expect_failure(lk_decode_sample(context.get(), &batch, nullptr, 2, sampled), LK_INVALID_ARGUMENT,
                         {"samplings"});
    EXPECT_EQ(context.length(), 0u);
    // Parameters of a row that keeps its logits are unused.
    lk_sampling unused = test::drawn_at(test::penalized(test::sampling_of(-1, 0, 7), -1, 0, 0, 9), 5);
    unused.keep_logits = 1;
    const lk_sampling kept[] = {unused, test::sampling_of(0)};
    EXPECT_EQ(lk_decode_sample(context.get(), &batch, kept, 2, sampled), LK_OK) << lk_last_error();
}

// A failed call changes nothing, so the caller may use the same draws again.
TEST(Sampling, ACancelledCallCanBeRepeated) {
    test::TestContext context(test::small_params());
    test::TestContext other(test::small_params());
    const std::vector<int32_t> text = test::text_tokens(20);
    const lk_batch batch{text.data(), nullptr, nullptr, nullptr, nullptr, 20};
    const lk_sampling sampling = test::drawn_at(test::sampling_of(1, 40, 0.9f), 0.625);
    int32_t tokens[2] = {-1, -2};
    ASSERT_EQ(lk_decode_sample(other.get(), &batch, &sampling, 1, &tokens[0]), LK_OK) << lk_last_error();
    lk_context_cancel(context.get());
    test::expect_failure(lk_decode_sample(context.get(), &batch, &sampling, 1, &tokens[1]), LK_CANCELLED, {});
    EXPECT_EQ(tokens[1], -2);
    EXPECT_EQ(context.length(), 0u);
    ASSERT_EQ(lk_decode_sample(context.get(), &batch, &sampling, 1, &tokens[1]), LK_OK) << lk_last_error();
    EXPECT_EQ(tokens[0], tokens[1]);
}

}  // namespace
}  // namespace lk
