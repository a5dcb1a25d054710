// Decode attention reads a kivi2 cache faster than an f16 one, with every kernel table. bench/cpu/attention.cpp
// measures how much faster. Processor time: that of other programs does not count.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <random>
#include <vector>

#include "backend/cpu/attention.h"
#include "support/kv_helpers.h"

namespace lk {
namespace {

// Attention of one token at the end of a cache with one layer and one KV head.
class Decode {
public:
    Decode(lk_cache_type type, const cpu::Kernels& kernels)
        : cache_(shape(type).config()), attention_(kernels, 1), q_(kHeads * kHeadSize), out_(q_.size()) {
        const test::Tokens tokens(shape(type), kTokens + 1, 7);
        test::append(cache_, 0, tokens, 0, kTokens);
        test::stage_call(cache_, {&segment_, 1}, tokens, kTokens, kTokens + 1);
        std::mt19937 random(3);
        std::normal_distribution<float> normal;
        std::generate(q_.begin(), q_.end(), [&] { return normal(random); });
    }

    double time() {
        const std::clock_t begin = std::clock();
        attention_.run({.cache = &cache_,
                        .segments = {&segment_, 1},
                        .q = q_.data(),
                        .out = out_.data(),
                        .layer = 0,
                        .n_head = kHeads,
                        .scale = 1 / std::sqrt(static_cast<float>(kHeadSize)),
                        .rotation = test::rotation(kHeadSize),
                        .window = 0},
                       pool_);
        return static_cast<double>(std::clock() - begin);
    }

private:
    static constexpr int kTokens = 3072;
    static constexpr int kHeads = 6;
    static constexpr int kHeadSize = 64;

    static test::Shape shape(lk_cache_type type) {
        return {.type_k = type, .type_v = type, .lengths = {0, 128}, .head_size = kHeadSize, .n_ubatch = kTokens};
    }

    kv::Cache cache_;
    cpu::Attention attention_;
    ThreadPool pool_{1};
    kv::Segment segment_{0, 0, 1};
    std::vector<float> q_;
    std::vector<float> out_;
};

TEST(AttentionSpeed, Kivi2IsFasterThanF16) {
#ifdef LK_INSTRUMENTED
    GTEST_SKIP() << "sanitizers and coverage change the times";
#endif
    constexpr int kTurns = 40;
    constexpr double kLimit = 1.15;
    for (const cpu::Kernels* kernels : test::kernel_tables()) {
        Decode f16(LK_CACHE_F16, *kernels);
        Decode kivi2(LK_CACHE_KIVI2, *kernels);
        double f16_least = f16.time();
        double kivi2_least = kivi2.time();
        for (int i = 1; i < kTurns; ++i) {
            f16_least = std::min(f16_least, f16.time());
            kivi2_least = std::min(kivi2_least, kivi2.time());
        }
        EXPECT_GT(f16_least / kivi2_least, kLimit) << kernels->name;
    }
}

}  // namespace
}  // namespace lk
