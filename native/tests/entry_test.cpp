// Concurrent calls of a context, from threads and from callbacks: one is admitted, the others get LK_BUSY with the name
// of the running call.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <utility>

#include "support/model_helpers.h"
#include "support/rendezvous.h"
#include "support/samplings.h"

namespace lk {
namespace {

using test::expect_failure;

struct Call {
    const char* name;
    std::function<lk_status()> run;
};

// A context on a model of two small layers, and every function that takes a context.
class EntryTest : public testing::Test {
protected:
    void SetUp() override {
        lk_model_params params;
        lk_model_params_default(&params);
        ASSERT_EQ(lk_model_load(LK_GOLDEN_DIR "/llama.gguf", &params, &model_), LK_OK) << lk_last_error();
        lk_model_info info;
        ASSERT_EQ(lk_model_describe(model_, &info), LK_OK);
        n_vocab_ = info.n_vocab;
        context_ = make_context();
        ASSERT_EQ(lk_decode(context_, &batch_), LK_OK) << lk_last_error();
        uint64_t size = 0;
        ASSERT_EQ(lk_seq_state_size(context_, 0, &size), LK_OK);
        state_.resize(size);
        ASSERT_EQ(lk_seq_state_get(context_, 0, state_.data(), size), LK_OK);
    }

    void TearDown() override {
        lk_context_free(context_);
        lk_model_free(model_);
    }

    lk_context* make_context() const {
        lk_context_params params;
        lk_context_params_default(&params);
        params.n_ctx = 256;
        params.n_seq_max = 3;
        params.n_threads = 1;
        params.cache = {LK_CACHE_F16, LK_CACHE_F16, 32, 32, -1, 0, LK_ROWS_OWN, 0, 0};
        lk_context* context = nullptr;
        EXPECT_EQ(lk_context_create(model_, &params, &context), LK_OK) << lk_last_error();
        return context;
    }

    // Each call in the list writes to its own memory.
    std::vector<Call> calls() {
        struct Results {
            int32_t token;
            uint32_t n;
            uint64_t size;
            float* row;
            std::vector<float> scores = std::vector<float>(16);
            std::vector<uint8_t> state;
            lk_cache_usage usage;
        };
        auto r = std::make_shared<Results>();
        r->state.resize(state_.size());
        lk_context* const c = context_;
        return {
            {"lk_decode", [=, this] { return lk_decode(c, &batch_); }},
            {"lk_decode_sample", [=, this] { return lk_decode_sample(c, &batch_, &sampling_, 1, &r->token); }},
            {"lk_logits", [=] { return lk_logits(c, 0, &r->row); }},
            {"lk_embedding", [=] { return lk_embedding(c, 0, &r->row); }},
            {"lk_rank_scores", [=] { return lk_rank_scores(c, 0, r->scores.data()); }},
            {"lk_context_set_threads", [=] { return lk_context_set_threads(c, 1); }},
            {"lk_seq_length", [=] { return lk_seq_length(c, 0, &r->n); }},
            {"lk_seq_truncate", [=] { return lk_seq_truncate(c, 0, 0); }},
            {"lk_seq_copy", [=] { return lk_seq_copy(c, 0, 1); }},
            {"lk_seq_remove", [=] { return lk_seq_remove(c, 0, 0, 1); }},
            {"lk_seq_state_size", [=] { return lk_seq_state_size(c, 0, &r->size); }},
            {"lk_seq_state_get", [=] { return lk_seq_state_get(c, 0, r->state.data(), r->state.size()); }},
            {"lk_seq_state_set", [=, this] { return lk_seq_state_set(c, 2, state_.data(), state_.size()); }},
            {"lk_cache_describe", [=] { return lk_cache_describe(c, &r->usage); }},
            {"lk_context_observe", [=] { return lk_context_observe(c, nullptr, nullptr); }},
        };
    }

    // Decodes the batch in an empty sequence and returns its logits.
    std::vector<float> logits(lk_context* context) const {
        EXPECT_EQ(lk_seq_truncate(context, 0, 0), LK_OK) << lk_last_error();
        EXPECT_EQ(lk_decode(context, &batch_), LK_OK) << lk_last_error();
        float* row = nullptr;
        EXPECT_EQ(lk_logits(context, 2, &row), LK_OK) << lk_last_error();
        return {row, row + n_vocab_};
    }

    lk_model* model_ = nullptr;
    lk_context* context_ = nullptr;
    uint32_t n_vocab_ = 0;
    std::vector<uint8_t> state_;
    const std::vector<int32_t> tokens_{5, 6, 7};
    const lk_batch batch_{tokens_.data(), nullptr, nullptr, nullptr, nullptr, 3};
    const lk_sampling sampling_ = test::sampling_of(0);
};

// Blocks a decode in its first layer.
struct Held {
    test::Semaphore inside;
    test::Semaphore go_on;
    bool first = true;

    static int32_t hold(const lk_observation*, void* self) {
        Held& held = *static_cast<Held*>(self);
        if (held.first) {
            held.first = false;
            held.inside.release();
            held.go_on.acquire();
        }
        return 1;
    }
};

TEST_F(EntryTest, ASecondCallIsRefusedAndSaysWhatRuns) {
    const std::vector<float> expected = logits(context_);
    for (const bool sample : {false, true}) {
        ASSERT_EQ(lk_seq_truncate(context_, 0, 0), LK_OK);
        Held held;
        ASSERT_EQ(lk_context_observe(context_, &Held::hold, &held), LK_OK);
        lk_status status = LK_INTERNAL_ERROR;
        int32_t token = -1;
        std::thread other([&] {
            status = sample ? lk_decode_sample(context_, &batch_, &sampling_, 1, &token) : lk_decode(context_, &batch_);
        });
        held.inside.acquire();
        for (const Call& call : calls()) {
            const char* const running = sample ? "is in lk_decode_sample." : "is in lk_decode.";
            expect_failure(call.run(), LK_BUSY, {std::string(call.name) + ": ", running, "another context"});
        }
        held.go_on.release();
        other.join();
        EXPECT_EQ(status, LK_OK);
        ASSERT_EQ(lk_context_observe(context_, nullptr, nullptr), LK_OK);
        uint32_t length = 0;
        ASSERT_EQ(lk_seq_length(context_, 0, &length), LK_OK);
        EXPECT_EQ(length, 3u);
    }
    EXPECT_EQ(logits(context_), expected);
}

TEST_F(EntryTest, ACallbackIsRefusedToo) {
    struct Seen {
        std::vector<Call> calls;
        std::vector<lk_status> statuses;
    } seen;
    seen.calls = calls();
    ASSERT_EQ(lk_context_observe(
                  context_,
                  [](const lk_observation* o, void* data) {
                      Seen& s = *static_cast<Seen*>(data);
                      for (const Call& call : s.calls) {
                          if (o->layer == 0) {
                              s.statuses.push_back(call.run());
                          }
                      }
                      return 1;
                  },
                  &seen),
              LK_OK);
    EXPECT_EQ(lk_decode(context_, &batch_), LK_OK) << lk_last_error();
    EXPECT_EQ(seen.statuses, std::vector<lk_status>(seen.calls.size(), LK_BUSY));
}

TEST_F(EntryTest, CancelIsLetIn) {
    Held held;
    ASSERT_EQ(lk_context_observe(context_, &Held::hold, &held), LK_OK);
    lk_status status = LK_OK;
    std::thread other([&] { status = lk_decode(context_, &batch_); });
    held.inside.acquire();
    lk_context_cancel(context_);
    held.go_on.release();
    other.join();
    EXPECT_EQ(status, LK_CANCELLED);
}

TEST_F(EntryTest, FreeCancelsTheRunningCallAndTheLastOneOutTakesTheMemory) {
    lk_context* const mine = std::exchange(context_, nullptr);
    Held held;
    ASSERT_EQ(lk_context_observe(mine, &Held::hold, &held), LK_OK);
    lk_status status = LK_OK;
    std::thread other([&] { status = lk_decode(mine, &batch_); });
    held.inside.acquire();
    lk_context_free(mine);
    lk_model_free(std::exchange(model_, nullptr));
    held.go_on.release();
    other.join();
    EXPECT_EQ(status, LK_CANCELLED);
}

TEST_F(EntryTest, ACallbackMayFreeTheContext) {
    lk_context* const mine = std::exchange(context_, nullptr);
    ASSERT_EQ(lk_context_observe(
                  mine,
                  [](const lk_observation*, void* data) {
                      lk_context_free(static_cast<lk_context*>(data));
                      return 1;
                  },
                  mine),
              LK_OK);
    EXPECT_EQ(lk_decode(mine, &batch_), LK_CANCELLED);
}

// Holds a decode until another call of the round has returned, or overlaps the decode of the other thread. Relaxed: the
// thread sanitizer must not see the calls as ordered.
int32_t wait_for_another_call(const lk_observation* o, void* n_returned) {
    const auto& returned = *static_cast<const std::atomic<int>*>(n_returned);
    while (o->layer == 0 && returned.load(std::memory_order_relaxed) == 0) {
        std::this_thread::yield();
    }
    return 1;
}

// For the thread sanitizer: every pair of concurrent calls, and a context freed during each call.
TEST_F(EntryTest, EveryPairOfCallsAtOnce) {
    const char* const more = std::getenv("LK_ENTRY_ROUNDS");
    const int rounds = more != nullptr ? std::atoi(more) : 100;
    const std::vector<float> expected = logits(context_);
    const std::vector<Call> left = calls();
    const std::vector<Call> right = calls();
    const auto allowed = [](lk_status s) {
        return s == LK_OK || s == LK_BUSY || s == LK_CACHE_FULL || s == LK_INVALID_ARGUMENT || s == LK_UNSUPPORTED;
    };
    std::vector<int> together(left.size());
    for (size_t i = 0; i < left.size(); ++i) {
        for (size_t j = 0; j < right.size(); ++j) {
            std::atomic<int> n_returned = 0;  // in this round
            if (i == 0) {
                ASSERT_EQ(lk_context_observe(context_, wait_for_another_call, &n_returned), LK_OK);
            }
            test::Rendezvous both;
            const auto race = [&](const Call& call, bool cleans, int* n_busy) {
                for (int round = 0; round < rounds; ++round) {
                    both.arrive_and_wait();
                    const lk_status status = call.run();
                    n_returned.fetch_add(1, std::memory_order_relaxed);
                    EXPECT_TRUE(allowed(status)) << call.name << ": " << lk_status_name(status);
                    *n_busy += status == LK_BUSY ? 1 : 0;
                    both.arrive_and_wait();
                    if (cleans) {
                        n_returned.store(0, std::memory_order_relaxed);
                        for (int seq = 0; seq < 3; ++seq) {
                            EXPECT_EQ(lk_seq_truncate(context_, seq, 0), LK_OK);
                        }
                    }
                }
            };
            int busy_left = 0;
            int busy_right = 0;
            std::thread other([&] { race(right[j], false, &busy_right); });
            race(left[i], true, &busy_left);
            other.join();
            together[i] += busy_left + busy_right;
            ASSERT_EQ(lk_context_observe(context_, nullptr, nullptr), LK_OK);
        }
    }
    EXPECT_GT(together[0], 0) << "no decode overlapped another call";
    EXPECT_EQ(logits(context_), expected);
}

TEST_F(EntryTest, FreedAtRandomMoments) {
    std::mt19937 random(1);
    const int rounds = 50;
    for (int round = 0; round < rounds; ++round) {
        lk_context* const mine = make_context();
        test::Semaphore inside;
        ASSERT_EQ(lk_context_observe(
                      mine,
                      [](const lk_observation* o, void* data) {
                          if (o->layer == 0 && o->positions[0] == 0) {
                              static_cast<test::Semaphore*>(data)->release();
                          }
                          return 1;
                      },
                      &inside),
                  LK_OK);
        const std::vector<int32_t> tokens(200, 5);
        const lk_batch batch{tokens.data(), nullptr, nullptr, nullptr, nullptr, 200};
        lk_status status = LK_INTERNAL_ERROR;
        std::thread other([&] { status = lk_decode(mine, &batch); });
        inside.acquire();
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
        lk_context_free(mine);
        other.join();
        EXPECT_TRUE(status == LK_OK || status == LK_CANCELLED) << lk_status_name(status);
    }
}

}  // namespace
}  // namespace lk
