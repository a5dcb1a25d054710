// Fails the 1st, 2nd, 3rd ... allocation of every call: the call reports it, the process survives, and every sequence
// is bit for bit unchanged.
#include <functional>
#include <new>

#include "base/thread_pool.h"
#include "support/failing_allocations.h"
#include "support/kv_helpers.h"
#include "support/samplings.h"
#include "support/tiny_llama.h"

namespace lk {
namespace {

using test::FailingAllocation;

// Saved states of all sequences.
using States = std::vector<std::vector<uint8_t>>;

class OutOfMemory : public testing::Test {
protected:
    OutOfMemory() : file_("oom.gguf", test::tiny_llama(32, 1)) {
        lk_model_params params;
        lk_model_params_default(&params);
        EXPECT_EQ(lk_model_load(file_.path().c_str(), &params, &model_), LK_OK) << lk_last_error();
    }
    ~OutOfMemory() override { lk_model_free(model_); }

    lk_context* create(lk_cache_type type, uint32_t n_threads = 1) const {
        const lk_context_params params = params_of(type, n_threads);
        lk_context* context = nullptr;
        EXPECT_EQ(lk_context_create(model_, &params, &context), LK_OK) << lk_last_error();
        return context;
    }
    static lk_context_params params_of(lk_cache_type type, uint32_t n_threads) {
        lk_context_params params;
        lk_context_params_default(&params);
        params.n_ctx = 1024;
        params.n_seq_max = 3;
        params.n_seq_ready = 1;
        params.n_ubatch = 48;
        params.n_threads = n_threads;
        params.cache = {type, type, 32, 32, -1, 0, LK_ROWS_OWN, 0, 0};
        return params;
    }
    // Tokens [begin, begin + n) of a text for one sequence.
    struct Text {
        Text(int32_t seq, int begin, int n) : tokens(n), seqs(n, seq) {
            for (int i = 0; i < n; ++i) {
                tokens[i] = ((begin + i) * 31 + (begin + i) / 7) % test::kTinyVocab;
            }
        }
        // Allocates nothing itself.
        lk_status decode(lk_context* context) const {
            const lk_batch batch{tokens.data(), nullptr, seqs.data(),
                                 nullptr,       nullptr, static_cast<uint32_t>(tokens.size())};
            return lk_decode(context, &batch);
        }

        std::vector<int32_t> tokens;
        std::vector<int32_t> seqs;
    };
    static States states(lk_context* context) {
        States all;
        for (int32_t seq = 0; seq < 3; ++seq) {
            uint64_t size = 0;
            EXPECT_EQ(lk_seq_state_size(context, seq, &size), LK_OK) << lk_last_error();
            all.emplace_back(size);
            EXPECT_EQ(lk_seq_state_get(context, seq, all.back().data(), size), LK_OK) << lk_last_error();
        }
        return all;
    }
    static std::vector<float> logits(lk_context* context, int n) {
        float* row = nullptr;
        EXPECT_EQ(lk_logits(context, static_cast<uint32_t>(n - 1), &row), LK_OK) << lk_last_error();
        return row != nullptr ? std::vector<float>(row, row + test::kTinyVocab) : std::vector<float>();
    }

    // Repeats the call, failing one allocation later each time, until it succeeds. Returns the number of failures.
    static int fail_each(const std::function<lk_status()>& call, const std::function<void()>& check) {
        for (int nth = 1;; ++nth) {
            lk_status status;
            bool happened;
            {
                const FailingAllocation failing(nth);
                status = call();
                happened = failing.happened();
            }
            if (!happened) {
                EXPECT_EQ(status, LK_OK) << lk_last_error();
                return nth - 1;
            }
            if (status == LK_OK) {
                return nth - 1;  // the call coped with the failure, such as a sort that falls back to sorting in place
            }
            EXPECT_EQ(status, LK_OUT_OF_MEMORY) << "allocation " << nth << ": " << lk_last_error();
            check();
            if (testing::Test::HasFailure()) {
                ADD_FAILURE() << "at allocation " << nth;
                return nth;
            }
        }
    }

    test::TemporaryFile file_;
    lk_model* model_ = nullptr;
};

TEST_F(OutOfMemory, LoadAndContext) {
    lk_model_params params;
    lk_model_params_default(&params);
    for (const uint32_t use_mmap : {0u, 1u}) {
        params.use_mmap = use_mmap;
        lk_model* loaded = nullptr;
        EXPECT_GT(fail_each([&] { return lk_model_load(file_.path().c_str(), &params, &loaded); },
                            [&] { EXPECT_EQ(loaded, nullptr); }),
                  50);
        lk_model_free(loaded);
    }
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
        for (const uint32_t n_threads : {1u, 2u}) {
            const lk_context_params of_context = params_of(type, n_threads);
            lk_context* context = nullptr;
            EXPECT_GT(fail_each([&] { return lk_context_create(model_, &of_context, &context); },
                                [&] { EXPECT_EQ(context, nullptr); }),
                      10);
            lk_context_free(context);
        }
    }
}

// Covers a first flush, later flushes, a batch of several passes, and a sequence without a ring.
TEST_F(OutOfMemory, ADecodeThatFailsChangesNoSequence) {
    struct Step {
        int32_t seq;
        int n;
    };
    constexpr Step kSteps[] = {{0, 40}, {0, 30}, {0, 1}, {0, 150}, {1, 5}, {1, 100}, {0, 33}};
    for (const lk_cache_type type : test::kAllTypes) {
        for (const uint32_t n_threads : {1u, 2u}) {
            SCOPED_TRACE(format("%s, %u threads", lk_cache_type_name(type), n_threads));
            lk_context* context = create(type, n_threads);
            lk_context* calm = create(type, 1);
            int lengths[3] = {};
            int failures = 0;
            for (const Step& step : kSteps) {
                const States before = states(context);
                int& length = lengths[step.seq];
                const Text text(step.seq, length, step.n);
                failures +=
                    fail_each([&] { return text.decode(context); }, [&] { EXPECT_EQ(states(context), before); });
                ASSERT_EQ(text.decode(calm), LK_OK);
                length += step.n;
                ASSERT_EQ(states(context), states(calm));
                ASSERT_EQ(logits(context, step.n), logits(calm, step.n));
            }
            EXPECT_GT(failures, 20);
            lk_context_free(context);
            lk_context_free(calm);
        }
    }
}

TEST_F(OutOfMemory, ASamplingThatFailsChangesNoSequence) {
    lk_context* context = create(LK_CACHE_KIVI2);
    int failures = 0;
    for (const int n : {1, 60, 130}) {
        const Text text(0, n, n);
        const std::vector<uint8_t> outputs(n, 1);
        std::vector<lk_sampling> samplings(n, test::sampling_of(1, 40, 0.9f));
        samplings[n / 2] = test::kept_logits();
        std::vector<int32_t> tokens(n);
        const lk_batch batch{text.tokens.data(),      nullptr, text.seqs.data(), nullptr, outputs.data(),
                             static_cast<uint32_t>(n)};
        const States before = states(context);
        failures += fail_each(
            [&] {
                return lk_decode_sample(context, &batch, samplings.data(), static_cast<uint32_t>(n), tokens.data());
            },
            [&] { EXPECT_EQ(states(context), before); });
        ASSERT_NE(states(context), before);
    }
    EXPECT_GT(failures, 20);
    lk_context_free(context);
}

TEST_F(OutOfMemory, SequenceOperationsThatFailChangeNoSequence) {
    for (const lk_cache_type type : test::kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        lk_context* context = create(type);
        ASSERT_EQ(Text(0, 0, 300).decode(context), LK_OK);
        ASSERT_EQ(Text(1, 0, 45).decode(context), LK_OK);
        const auto fails = [&](const std::function<lk_status()>& call) {
            const States before = states(context);
            EXPECT_GT(fail_each(call, [&] { EXPECT_EQ(states(context), before); }), 1);
        };
        fails([&] { return lk_seq_copy(context, 0, 2); });
        fails([&] { return lk_seq_remove(context, 0, 2, 60); });
        fails([&] { return lk_seq_remove(context, 0, 70, 71); });
        const std::vector<uint8_t> saved = states(context)[0];
        std::vector<uint8_t> again(saved.size());
        fails([&] { return lk_seq_state_get(context, 0, again.data(), again.size()); });
        EXPECT_EQ(again, saved);
        fails([&] { return lk_seq_state_set(context, 1, saved.data(), saved.size()); });
        EXPECT_EQ(states(context)[1], saved);
        const States before = states(context);
        EXPECT_EQ(
            fail_each([&] { return lk_seq_truncate(context, 2, 37); }, [&] { EXPECT_EQ(states(context), before); }), 0);
        lk_context_free(context);
    }
}

TEST_F(OutOfMemory, QuantizeLeavesNoFile) {
    lk_quantize_params params;
    lk_quantize_params_default(&params);
    params.type = "Q8_0";
    params.n_threads = 2;
    const std::string out = file_.path() + ".q8";
    struct stat status;
    EXPECT_GT(fail_each([&] { return lk_quantize(file_.path().c_str(), out.c_str(), &params, nullptr); },
                        [&] {
                            EXPECT_NE(::stat(out.c_str(), &status), 0);
                            EXPECT_NE(::stat((out + ".part").c_str(), &status), 0);
                        }),
              20);
    EXPECT_EQ(::stat(out.c_str(), &status), 0);
    std::remove(out.c_str());
}

// Any exception of a task on a worker thread.
TEST_F(OutOfMemory, AWorkersExceptionReachesTheCaller) {
    ThreadPool pool(3);
    for (int round = 0; round < 200; ++round) {
        EXPECT_THROW(pool.parallel_for(64, [](int, int) { throw std::bad_alloc(); }), std::bad_alloc);
        EXPECT_THROW(pool.parallel_for(64, [](int, int) { throw 7; }), int);
        EXPECT_THROW(pool.parallel_for(64, [](int i, int) { LK_CHECK(i != 63, LK_CANCELLED, "task %d", i); }), Error);
        std::atomic<int> n = 0;
        pool.parallel_for(64, [&](int, int) { ++n; });
        ASSERT_EQ(n, 64);
    }
}

// No allocation succeeds, not even for the message.
TEST_F(OutOfMemory, EveryAllocationFromOneOn) {
    lk_context* context = create(LK_CACHE_KIVI2, 2);
    ASSERT_EQ(Text(0, 0, 70).decode(context), LK_OK);
    const States before = states(context);
    const Text text(0, 70, 100);
    for (int nth = 1;; ++nth) {
        lk_status status;
        bool happened;
        {
            const FailingAllocation failing(nth, true);
            status = text.decode(context);
            happened = failing.happened();
        }
        if (!happened) {
            break;
        }
        ASSERT_EQ(status, LK_OUT_OF_MEMORY) << lk_last_error();
        ASSERT_EQ(states(context), before);
    }
    lk_context_free(context);
}

}  // namespace
}  // namespace lk
