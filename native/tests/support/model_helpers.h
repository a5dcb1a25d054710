// The demo model and its contexts, through the C interface.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kv/codec/kivi_format.h"
#include "llama_kivi.h"

namespace lk::test {

inline const char* demo_model_path() {
    return LK_MODELS_DIR "/kivi-demo-llama-37m-q4_k_m.gguf";
}

inline lk_model* load_demo_model() {
    lk_model_params params;
    lk_model_params_default(&params);
    lk_model* model = nullptr;
    EXPECT_EQ(lk_model_load(demo_model_path(), &params, &model), LK_OK) << lk_last_error();
    return model;
}

// Loaded once for all tests.
inline lk_model* demo_model() {
    static lk_model* const model = load_demo_model();
    return model;
}

// Group and residual of KIVI types of 32, so that a hundred tokens reach the pages.
inline lk_context_params small_params(lk_cache_type type = LK_CACHE_KIVI2) {
    lk_context_params params;
    lk_context_params_default(&params);
    params.n_ctx = 1024;
    params.n_seq_max = 3;
    params.n_threads = 2;
    params.cache = {type, type, 32, kv::is_kivi(type) ? 32 : 0, -1, 0, LK_ROWS_OWN, 0, 0};
    return params;
}

// n token ids of the demo model's vocabulary.
inline std::vector<int32_t> make_tokens(int n, int seed = 1) {
    std::vector<int32_t> tokens(n);
    for (int i = 0; i < n; ++i) {
        tokens[i] = (i * i * 31 + i * 7919 + seed * 104729) % 16384;
    }
    return tokens;
}

// n token ids of an English text of 210 tokens in the demo model's vocabulary, repeated. Real text keeps differences in
// rounding small; random ids amplify them.
inline std::vector<int32_t> text_tokens(int n) {
    static const int32_t text[] = {
        16380, 32,   1428, 7326, 262,   1480,  292,  775,   1828,  319,  6713, 268,  902,   1480, 292,   2029,  13,
        480,   1066, 6175, 313,  268,   10897, 261,  11,    634,   9030, 82,   268,  1815,  954,  6244,  25,    1247,
        11,    4564, 11,   4329, 319,   7489,  13,   480,   7364,  1058, 4448, 262,  3081,  488,  268,   6244,  11,
        824,   268,  7652, 310,  268,   1828,  13,   831,   268,   1815, 803,  423,  716,   268,  7652,  11,    268,
        7364,  6400, 262,  1394, 848,   319,   268,  1884,  369,   634,  386,  896,  2683,  13,   4638,  355,   11,
        268,   533,  7734, 284,  10893, 911,   268,  3081,  319,   6279, 1882, 2117, 262,   533,  13,    642,   262,
        1828,  395,  533,  7658, 1512,  310,   268,  877,   709,   423,  329,  2887, 1820,  13,   480,   2500,  2364,
        8387,  624,  355,  313,  3138,  718,   11,   10259, 4522,  577,  731,  310,  8874,  11,   319,   10715, 1618,
        310,   2873, 1326, 449,  1013,  13650, 13,   12610, 268,   624,  5498, 3856, 15715, 5720, 319,   7142,  336,
        268,   7804, 13,   371,  1631,  1409,  3777, 1428,  803,   669,  310,  407,  1811,  268,  1480,  4237,  11,
        794,   355,  386,  438,  523,   1399,  386,  625,   14913, 1002, 268,  1480, 13,    480,  10282, 15156, 282,
        12463, 268,  1416, 310,  1495,  355,   5411, 8160,  291,   664,  685,  11,   634,   3452, 837,   355,   268,
        1480,  1583, 523,  336,  2362,  390};
    std::vector<int32_t> tokens(n);
    for (int i = 0; i < n; ++i) {
        tokens[i] = text[i % std::size(text)];
    }
    return tokens;
}

using Logits = std::vector<float>;

class TestContext {
public:
    explicit TestContext(const lk_context_params& params, lk_model* model = demo_model()) {
        EXPECT_EQ(lk_context_create(model, &params, &context_), LK_OK) << lk_last_error();
    }
    ~TestContext() { lk_context_free(context_); }
    TestContext(const TestContext&) = delete;
    TestContext& operator=(const TestContext&) = delete;

    lk_context* get() const { return context_; }

    // Decodes tokens of one sequence, with logits for the last.
    lk_status decode(const std::vector<int32_t>& tokens, int32_t seq = 0) {
        const std::vector<int32_t> seqs(tokens.size(), seq);
        const lk_batch batch{tokens.data(), nullptr, seqs.data(),
                             nullptr,       nullptr, static_cast<uint32_t>(tokens.size())};
        return lk_decode(context_, &batch);
    }

    Logits logits(uint32_t index) {
        lk_model_info info;
        EXPECT_EQ(lk_model_describe(demo_model(), &info), LK_OK);
        float* row = nullptr;
        const lk_status status = lk_logits(context_, index, &row);
        EXPECT_EQ(status, LK_OK) << lk_last_error();
        return status == LK_OK ? Logits(row, row + info.n_vocab) : Logits(info.n_vocab);
    }

    // Decodes and returns the logits of the last token.
    Logits run(const std::vector<int32_t>& tokens, int32_t seq = 0) {
        EXPECT_EQ(decode(tokens, seq), LK_OK) << lk_last_error();
        return logits(static_cast<uint32_t>(tokens.size() - 1));
    }

    uint32_t length(int32_t seq = 0) const {
        uint32_t n = ~0u;
        EXPECT_EQ(lk_seq_length(context_, seq, &n), LK_OK) << lk_last_error();
        return n;
    }

    lk_cache_usage usage() const {
        lk_cache_usage u{};
        EXPECT_EQ(lk_cache_describe(context_, &u), LK_OK) << lk_last_error();
        return u;
    }

private:
    lk_context* context_ = nullptr;
};

// The larger of two errors; NaN if either is NaN.
inline double worse(double a, double b) {
    return std::isnan(a) || b <= a ? a : b;
}

// Largest difference relative to the spread of the logits.
inline double distance(const Logits& a, const Logits& b) {
    double largest = 0;
    double mean = 0;
    double square = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
        largest = worse(largest, difference);
        mean += a[i] / static_cast<double>(a.size());
        square += static_cast<double>(a[i]) * a[i] / static_cast<double>(a.size());
    }
    return largest / std::sqrt(square - mean * mean);
}

// Expects a failure whose message contains all parts.
inline void expect_failure(lk_status status, lk_status expected, const std::vector<std::string>& parts) {
    const std::string message = lk_last_error();
    EXPECT_EQ(status, expected) << lk_status_name(status) << ": " << message;
    for (const std::string& part : parts) {
        EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
    }
}

}  // namespace lk::test
