// Messages for a cache type or size that does not fit, and for a full cache: following the advice must work.
#include <regex>
#include <set>

#include "support/kv_helpers.h"
#include "support/model_helpers.h"

namespace lk::test {
namespace {

kv::CacheConfig config(lk_cache_type type, int head_size, uint32_t group) {
    kv::CacheConfig c;
    c.n_layer = 1;
    c.n_head_kv = 1;
    c.head_size = head_size;
    c.n_ctx = 512;
    c.n_seq_max = 1;
    c.n_ubatch = 32;
    c.params = {type, type, group, 128, -1, 0, LK_ROWS_OWN, 0, 0};
    return c;
}

std::string refusal(const kv::CacheConfig& c) {
    try {
        c.validate();
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

std::set<std::string> names_behind(const std::string& message, const std::string& words) {
    std::set<std::string> names;
    const size_t at = message.find(words);
    const std::string list = at == std::string::npos ? "" : message.substr(at + words.size());
    const std::regex word("[a-z0-9_-]+");
    for (std::sregex_iterator it(list.begin(), list.end(), word), end; it != end; ++it) {
        names.insert(it->str());
    }
    return names;
}

// The message for a type that does not fit the head size lists exactly the types that fit.
TEST(CacheAdvice, TypesThatFitAreThoseThatAreTaken) {
    int refused = 0;
    for (int head_size = 8; head_size <= kv::kMaxHeadSize; head_size += 8) {
        for (const uint32_t group : {16u, 32u, 48u, 128u}) {
            std::set<std::string> taken;
            for (int type = 0; type < LK_CACHE_TYPE_COUNT; ++type) {
                if (refusal(config(static_cast<lk_cache_type>(type), head_size, group)).empty()) {
                    taken.insert(lk_cache_type_name(static_cast<lk_cache_type>(type)));
                }
            }
            for (int type = 0; type < LK_CACHE_TYPE_COUNT; ++type) {
                const std::string message = refusal(config(static_cast<lk_cache_type>(type), head_size, group));
                if (message.empty() || message.find("head size") == std::string::npos) {
                    continue;
                }
                ++refused;
                EXPECT_EQ(names_behind(message, "types that fit for cache.type_k: "), taken) << message;
                EXPECT_NE(message.find("this model has " + std::to_string(head_size)), std::string::npos) << message;
            }
        }
    }
    EXPECT_GT(refused, 100);
}

// Messages use this interface's parameter names; higher layers replace them with their own.
TEST(CacheAdvice, MessagesNameTheParametersOfThisInterface) {
    const auto sizes = [](uint32_t group, int32_t residual, int32_t sinks) {
        kv::CacheConfig c = config(LK_CACHE_KIVI2, 64, group);
        c.params.residual = residual;
        c.params.sinks = sinks;
        return refusal(c);
    };
    EXPECT_NE(sizes(48, 128, -1).find("cache.group is 48"), std::string::npos);
    EXPECT_NE(sizes(32, -1, -1).find("cache.residual is -1"), std::string::npos);
    EXPECT_NE(sizes(32, 128, 33).find("cache.sinks is 33"), std::string::npos);
    for (const std::string& message :
         {sizes(48, 128, -1), sizes(32, -1, -1), sizes(32, 128, 33), refusal(config(LK_CACHE_Q8_0, 40, 32))}) {
        EXPECT_EQ(message.find("--"), std::string::npos) << message;
    }
}

// Used, needed and capacity of a full cache are correct, also for a saved state that does not fit.
TEST(CacheAdvice, AStateThatDoesNotFitSaysWhatItNeeds) {
    lk_context_params params = small_params();
    params.n_ctx = 200;
    TestContext context(params);
    context.run(make_tokens(120), 0);
    uint64_t size = 0;
    ASSERT_EQ(lk_seq_state_size(context.get(), 0, &size), LK_OK);
    std::vector<uint8_t> state(size);
    ASSERT_EQ(lk_seq_state_get(context.get(), 0, state.data(), size), LK_OK);
    ASSERT_EQ(lk_seq_truncate(context.get(), 0, 0), LK_OK);
    context.run(make_tokens(100), 0);
    context.run(make_tokens(7), 1);
    expect_failure(lk_seq_state_set(context.get(), 2, state.data(), size), LK_CACHE_FULL,
                   {"107 of 200 tokens used", "120 more needed"});
    uint64_t needed = 0;
    uint64_t available = 0;
    lk_last_error_amounts(&needed, &available);
    EXPECT_EQ(needed, 120u);
    EXPECT_EQ(available, 93u);
    EXPECT_EQ(context.length(2), 0u);
    // It fits in place of the existing sequence, whose tokens do not count.
    EXPECT_EQ(lk_seq_state_set(context.get(), 0, state.data(), size), LK_OK) << lk_last_error();
    expect_failure(context.decode(make_tokens(74), 1), LK_CACHE_FULL, {"127 of 200 tokens used", "74 more needed"});
}

}  // namespace
}  // namespace lk::test
