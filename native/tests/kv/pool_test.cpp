// Memory of the cache: it is taken with a sequence's first row and comes back when the sequence is cleared.
#include "kv/pool.h"

#include <fstream>
#include <utility>

#include "kv/budget.h"
#include "kv/split_cache.h"
#include "support/kv_helpers.h"

#ifdef _WIN32
#include "base/windows.h"

#include <psapi.h>
#endif

namespace lk::kv {
namespace {

using test::append;
using test::image_of;
using test::Shape;
using test::Tokens;

TEST(Pool, SlotsAreZeroAndReused) {
    SlotPool pool(host_memory(), 1000);
    Slot a = pool.take();
    Slot b = pool.take();
    EXPECT_NE(a.data(), b.data());
    EXPECT_EQ(pool.used_bytes(), 2000u);
    std::fill_n(a.data(), 1000, uint8_t{7});
    const Slot c = pool.copy(a);
    EXPECT_EQ(c.data()[999], 7);
    uint8_t* const place = a.data();
    a = {};
    EXPECT_EQ(pool.used_bytes(), 2000u);
    a = pool.take();
    EXPECT_EQ(a.data(), place);
    EXPECT_TRUE(std::all_of(a.data(), a.data() + 1000, [](uint8_t x) { return x == 0; }));
    EXPECT_GT(pool.held_bytes(), 0u);
}

TEST(Pool, EmptySlabsGoBack) {
    SlotPool pool(host_memory(), 300 << 10);  // three slots a slab
    std::vector<Slot> slots;
    for (int i = 0; i < 30; ++i) {
        slots.push_back(pool.take());
    }
    const uint64_t held = pool.held_bytes();
    slots.resize(15);
    EXPECT_LE(pool.held_bytes(), held * 6 / 10);  // one empty slab is kept
    slots.resize(1);
    EXPECT_LE(pool.held_bytes(), held * 2 / 10);
    slots.clear();
    EXPECT_EQ(pool.held_bytes(), 0u);
}

// Bytes of this process in memory.
int64_t resident_bytes() {
#ifdef _WIN32
    PROCESS_MEMORY_COUNTERS counters{};
    EXPECT_TRUE(::K32GetProcessMemoryInfo(::GetCurrentProcess(), &counters, sizeof(counters)));
    return static_cast<int64_t>(counters.WorkingSetSize);
#else
    std::ifstream file("/proc/self/statm");
    int64_t total = 0;
    int64_t resident = 0;
    file >> total >> resident;
    return resident * 4096;
#endif
}

TEST(CacheMemory, ComesBackWhenConversationsEnd) {
    constexpr int kConversations = 256;
    Shape shape{.n_layer = 12, .n_head_kv = 3, .n_seq = kConversations, .n_ctx = 1 << 20, .n_ubatch = 64};
    const Tokens tokens(shape, 60, 1);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 60);
    cache.truncate(0, 0);
    EXPECT_EQ(cache.usage().allocated_bytes, 0u);
    const int64_t before = resident_bytes();
    for (int seq = 0; seq < kConversations; ++seq) {
        append(cache, seq, tokens, 0, 60);
    }
    const lk_cache_usage during = cache.usage();
    EXPECT_GT(during.allocated_bytes, kConversations * cache.sequence(0).k.fixed_bytes());
    EXPECT_LT(during.held_bytes, during.allocated_bytes * 11 / 10);
    const int64_t most = resident_bytes();
    for (int seq = 0; seq < kConversations; ++seq) {
        cache.truncate(seq, 0);
    }
    const lk_cache_usage after = cache.usage();
    EXPECT_EQ(after.allocated_bytes, 0u);
    EXPECT_EQ(after.held_bytes, 0u);
    const int64_t left = resident_bytes() - before;
    std::printf("256 conversations of 60 tokens: %lld K allocated, %lld K resident; afterwards %lld K and %lld K\n",
                static_cast<long long>(during.allocated_bytes >> 10), static_cast<long long>((most - before) >> 10),
                static_cast<long long>(after.allocated_bytes >> 10), static_cast<long long>(left >> 10));
#if !defined(LK_SANITIZED)  // AddressSanitizer keeps freed memory
    EXPECT_LT(left, (most - before) / 10);
#endif
}

// Sequences of different lengths that end in another order than they began.
TEST(CacheMemory, IsFlatOverManySequences) {
    Shape shape{.n_layer = 12, .n_head_kv = 3, .n_seq = 16, .n_ctx = 1 << 20, .n_ubatch = 512};
    const Tokens tokens(shape, 512, 1);
    Cache cache(shape.config());
    std::mt19937 random(4);
    uint64_t most = 0;
    for (int i = 0; i < 120; ++i) {
        const int seq = static_cast<int>(random() % 16);
        cache.truncate(seq, 0);
        append(cache, seq, tokens, 0, 1 + static_cast<int>(random() % 512));
        const lk_cache_usage usage = cache.usage();
        // Free slots: at most an empty slab of each pool, and partly used ones.
        EXPECT_LE(usage.held_bytes, usage.allocated_bytes + 8 * (1 << 20)) << i;
        most = std::max(most, usage.held_bytes);
    }
    for (int seq = 0; seq < 16; ++seq) {
        cache.truncate(seq, 0);
    }
    EXPECT_GT(most, 0u);
    EXPECT_EQ(cache.usage().held_bytes, 0u);
}

TEST(CacheMemory, BeamsGiveBackWhatTheyTook) {
    const Shape shape{.n_layer = 2, .n_head_kv = 2, .n_seq = 4};
    const Tokens tokens(shape, 500, 2);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 20);
    std::mt19937 random(5);
    for (int n = 20; n < 500; n += 20) {
        for (int beam = 1; beam < 4; ++beam) {
            cache.copy(0, beam);
        }
        for (int beam = 0; beam < 4; ++beam) {
            append(cache, beam, tokens, n, n + 20);
        }
        cache.copy(static_cast<int>(random() % 4), 0);
    }
    for (int beam = 0; beam < 4; ++beam) {
        cache.truncate(beam, 0);
    }
    EXPECT_EQ(cache.usage().allocated_bytes, 0u);
    EXPECT_EQ(cache.usage().held_bytes, 0u);
}

// ---- the budget in bytes

SplitCache split_cache(const CacheConfig& config) {
    const CachePlace place{config.n_layer, &host_memory()};
    return {config, {&place, 1}};
}

void append(SplitCache& cache, int seq, const Tokens& tokens, int begin, int end) {
    std::vector<int32_t> rows(cache.config().n_seq_max);
    rows[seq] = end - begin;
    cache.check_append(rows);
    test::append(*cache.parts().front(), seq, tokens, begin, end);
}

TEST(CacheBudget, HoldsTheSequencesOfTheEstimate) {
    Shape shape{.lengths = {0, 128}, .n_layer = 2, .n_head_kv = 2, .n_seq = 12, .n_ctx = 1 << 20};
    CacheConfig config = shape.config();
    const uint64_t one = sequence_bytes(config, 700);
    config.params.memory_budget = 6 * one - 1;
    SplitCache cache = split_cache(config);
    const Tokens tokens(shape, 900, 6);
    for (int seq = 0; seq < 5; ++seq) {
        append(cache, seq, tokens, 0, 700);
    }
    EXPECT_EQ(cache.parts().front()->used_bytes(), 5 * one);
    const test::Image before = image_of(*cache.parts().front(), 3);
    test::expect_error(LK_CACHE_FULL, {"memory budget", "more needed", std::to_string(config.params.memory_budget)},
                       [&] { append(cache, 5, tokens, 0, 700); });
    EXPECT_EQ(cache.length(5), 0);
    EXPECT_EQ(cache.parts().front()->used_bytes(), 5 * one);
    append(cache, 5, tokens, 0, 100);  // a ring
    test::expect_error(LK_CACHE_FULL, {"memory budget"}, [&] { cache.copy(3, 6); });
    EXPECT_EQ(cache.length(6), 0);
    cache.copy(3, 4);  // gives back what sequence 4 had
    EXPECT_EQ(image_of(*cache.parts().front(), 3).difference(before), "");
    cache.truncate(5, 0);
    cache.copy(3, 6);
    EXPECT_LE(cache.parts().front()->used_bytes(), config.params.memory_budget);
}

// Random appends and clears: the bytes computed beforehand are those taken.
TEST(CacheBudget, IsNeverExceeded) {
    const Shape shape{.n_layer = 1, .n_head_kv = 2, .n_seq = 6, .n_ctx = 1 << 20};
    CacheConfig config = shape.config();
    config.params.memory_budget = 3 * sequence_bytes(config, 600);
    SplitCache cache = split_cache(config);
    const Tokens tokens(shape, 4000, 7);
    std::mt19937 random(8);
    int refused = 0;
    for (int i = 0; i < 300; ++i) {
        const int seq = static_cast<int>(random() % 6);
        const int n = 1 + static_cast<int>(random() % 250);
        const int length = cache.length(seq);
        if (random() % 8 == 0) {
            cache.truncate(seq, static_cast<int>(random() % 3) * length / 3);
        } else if (random() % 4 == 0 && length > 0) {
            try {
                cache.copy(seq, static_cast<int>(random() % 6));
            } catch (const Error& e) {
                ASSERT_EQ(e.status(), LK_CACHE_FULL);
                ++refused;
            }
        } else if (length + n < 4000) {
            try {
                append(cache, seq, tokens, length, length + n);
                EXPECT_EQ(cache.length(seq), length + n);
            } catch (const Error& e) {
                ASSERT_EQ(e.status(), LK_CACHE_FULL);
                EXPECT_EQ(cache.length(seq), length);
                ++refused;
            }
        }
        ASSERT_LE(cache.parts().front()->used_bytes(), config.params.memory_budget) << i;
    }
    EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace lk::kv
