// Observers, and the round trip of rows through a cache.
#include <random>

#include "runtime/context.h"
#include "support/kv_helpers.h"
#include "support/model_helpers.h"

namespace lk {
namespace {

struct Seen {
    std::vector<uint32_t> layers;
    std::vector<int32_t> positions;
    std::vector<int32_t> seqs;
    std::vector<std::vector<float>> k;  // [layer]: all rows
    std::vector<std::vector<float>> v;
    std::vector<std::vector<float>> q;
    const ModelConfig* config = nullptr;
    int stop_at = -1;

    static int32_t take(const lk_observation* o, void* self) {
        Seen& s = *static_cast<Seen*>(self);
        if (static_cast<int>(o->layer) == s.stop_at) {
            return 0;
        }
        s.layers.push_back(o->layer);
        if (o->layer == 0) {
            s.positions.insert(s.positions.end(), o->positions, o->positions + o->n_rows);
            s.seqs.insert(s.seqs.end(), o->seq_ids, o->seq_ids + o->n_rows);
        }
        for (auto* all : {&s.q, &s.k, &s.v}) {
            all->resize(s.config->n_layer);
        }
        const size_t kv = size_t{o->n_rows} * s.config->n_head_kv * s.config->head_size;
        const size_t q = size_t{o->n_rows} * s.config->n_head * s.config->head_size;
        s.k[o->layer].insert(s.k[o->layer].end(), o->k, o->k + kv);
        s.v[o->layer].insert(s.v[o->layer].end(), o->v, o->v + kv);
        s.q[o->layer].insert(s.q[o->layer].end(), o->q, o->q + q);
        return 1;
    }
};

class ObserverTest : public testing::Test {
protected:
    std::shared_ptr<const Model> model_ = Model::load(test::demo_model_path(), true, 0, nullptr);

    static lk_batch batch_of(const std::vector<int32_t>& tokens) {
        return {tokens.data(), nullptr, nullptr, nullptr, nullptr, static_cast<uint32_t>(tokens.size())};
    }
};

TEST_F(ObserverTest, SeesWhatTheCacheTakes) {
    lk_context_params params = test::small_params(LK_CACHE_F16);
    params.n_ubatch = 64;
    Context context(model_, params);
    Seen seen;
    seen.config = &model_->config;
    context.observe({&Seen::take, &seen});
    const std::vector<int32_t> tokens = test::text_tokens(150);
    context.decode(batch_of(tokens));

    const ModelConfig& c = model_->config;
    ASSERT_EQ(seen.layers.size(), 3u * c.n_layer) << "three passes of 64 rows at most";
    ASSERT_EQ(seen.positions.size(), 150u);
    for (int i = 0; i < 150; ++i) {
        EXPECT_EQ(seen.positions[i], i);
        EXPECT_EQ(seen.seqs[i], 0);
    }
    const kv::Sequence& held = context.cache().parts().front()->sequence(0);
    for (int layer = 0; layer < c.n_layer; ++layer) {
        for (int head = 0; head < c.n_head_kv; ++head) {
            for (int i = 0; i < 150; ++i) {
                const size_t at = (static_cast<size_t>(i) * c.n_head_kv + head) * c.head_size;
                const std::vector<float> k = test::cached_row(held.k.view(layer, head), i);
                const std::vector<float> v = test::cached_row(held.v.view(layer, head), i);
                for (int j = 0; j < c.head_size; ++j) {
                    ASSERT_EQ(k[j], half_to_float(float_to_half(seen.k[layer][at + j])));
                    ASSERT_EQ(v[j], half_to_float(float_to_half(seen.v[layer][at + j])));
                }
            }
        }
    }
}

TEST_F(ObserverTest, ChangesNothingAndCanStop) {
    const std::vector<int32_t> tokens = test::text_tokens(40);
    Context plain(model_, test::small_params());
    Context watched(model_, test::small_params());
    Seen seen;
    seen.config = &model_->config;
    watched.observe({&Seen::take, &seen});
    plain.decode(batch_of(tokens));
    watched.decode(batch_of(tokens));
    EXPECT_EQ(std::memcmp(plain.logits(39), watched.logits(39), model_->config.n_vocab * sizeof(float)), 0);

    seen.stop_at = 2;
    try {
        watched.decode(batch_of(tokens));
        FAIL() << "the observer's 0 did not stop the call";
    } catch (const Error& e) {
        EXPECT_EQ(e.status(), LK_CANCELLED);
    }
    EXPECT_EQ(watched.cache().length(0), 40);
    const size_t shown = seen.layers.size();
    watched.observe({});
    watched.decode(batch_of(tokens));
    EXPECT_EQ(seen.layers.size(), shown) << "the removed observer was called";
}

TEST(RoundTrip, GivesTheRowsOfACache) {
    for (const lk_cache_type type : test::kAllTypes) {
        const test::Shape shape{.type_k = type, .type_v = type, .n_head_kv = 2};
        SCOPED_TRACE(shape.text());
        constexpr int n = 500;
        const test::Tokens tokens(shape, n, 3);
        kv::Cache cache(shape.config());
        test::append(cache, 0, tokens, 0, n);
        std::vector<float> k = tokens.k[0];
        std::vector<float> v = tokens.v[0];
        const lk_cache_params params = shape.config().params;
        ASSERT_EQ(lk_cache_round_trip(&params, 2, shape.head_size, n, k.data(), v.data()), LK_OK) << lk_last_error();
        for (int head = 0; head < 2; ++head) {
            for (int i = 0; i < n; ++i) {
                const auto at = k.begin() + (i * 2 + head) * shape.head_size;
                EXPECT_EQ(std::vector<float>(at, at + shape.head_size),
                          test::cached_row(cache.sequence(0).k.view(0, head), i));
                const auto of_v = v.begin() + (i * 2 + head) * shape.head_size;
                EXPECT_EQ(std::vector<float>(of_v, of_v + shape.head_size),
                          test::cached_row(cache.sequence(0).v.view(0, head), i));
            }
        }
    }
}

// More tokens than a cache appends at once.
TEST(RoundTrip, TakesAsManyTokensAsItSays) {
    constexpr uint32_t kTokens = 70000;
    constexpr uint32_t kMost = 1u << 20;
    const test::Shape shape{.type_k = LK_CACHE_KIVI4, .type_v = LK_CACHE_KIVI4, .head_size = 16};
    const test::Tokens tokens(shape, kTokens, 4);
    std::vector<float> k = tokens.k[0];
    std::vector<float> v = tokens.v[0];
    lk_cache_params params{shape.type_k, shape.type_v, 32, 128, -1, 0, LK_ROWS_F16, 0, 0};
    ASSERT_EQ(lk_cache_round_trip(&params, 1, 16, kTokens, k.data(), v.data()), LK_OK) << lk_last_error();
    std::vector<float> first(tokens.k[0].begin(), tokens.k[0].begin() + 1000 * 16);
    std::vector<float> values(tokens.v[0].begin(), tokens.v[0].begin() + 1000 * 16);
    ASSERT_EQ(lk_cache_round_trip(&params, 1, 16, 1000, first.data(), values.data()), LK_OK) << lk_last_error();
    EXPECT_TRUE(std::equal(first.begin(), first.begin() + 800 * 16, k.begin()));
    EXPECT_TRUE(std::equal(values.begin(), values.begin() + 800 * 16, v.begin()));
    EXPECT_EQ(k.back(), half_to_float(float_to_half(tokens.k[0].back())));
    test::expect_failure(lk_cache_round_trip(&params, 1, 16, kMost + 1, k.data(), v.data()), LK_INVALID_ARGUMENT,
                         {"n_tokens is 1048577", "1 to 1048576"});
}

TEST(RoundTrip, NamesWhatDoesNotFit) {
    std::vector<float> rows(64, 1.0f);
    lk_cache_params params{LK_CACHE_KIVI2, LK_CACHE_KIVI2, 32, 128, -1, 0, LK_ROWS_OWN, 0, 0};
    test::expect_failure(lk_cache_round_trip(&params, 0, 64, 1, rows.data(), rows.data()), LK_INVALID_ARGUMENT,
                         {"n_head_kv"});
    test::expect_failure(lk_cache_round_trip(&params, 1, 100000, 1, rows.data(), rows.data()), LK_INVALID_ARGUMENT,
                         {"head_size"});
    test::expect_failure(lk_cache_round_trip(&params, 1, 64, 0, rows.data(), rows.data()), LK_INVALID_ARGUMENT,
                         {"n_tokens"});
    params.group = 33;
    test::expect_failure(lk_cache_round_trip(&params, 1, 64, 1, rows.data(), rows.data()), LK_INVALID_ARGUMENT, {"33"});
    params.group = 32;
    rows[3] = std::nanf("");
    test::expect_failure(lk_cache_round_trip(&params, 1, 64, 1, rows.data(), rows.data()), LK_NUMERIC_ERROR, {"NaN"});
}

}  // namespace
}  // namespace lk
