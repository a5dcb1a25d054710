// The three operations of an append: rows and pages are staged beside the sequence; only commit changes it.
#include "kv/state/state.h"
#include "support/failing_allocations.h"
#include "support/kv_helpers.h"

namespace lk {
namespace {

using kv::Cache;
using kv::Segment;
using kv::Side;
using test::FailingAllocation;
using test::Image;
using test::image_of;
using test::kAllLengths;
using test::kAllTypes;
using test::Shape;
using test::Tokens;

// A sequence that grows call by call; tests run the operations of a call one by one.
struct Call {
    Call(Cache& to, const Tokens& rows, int first, int end)
        : cache(to), tokens(rows), begin(first), n_rows(end - first) {}

    void reserve() { cache.reserve({&segment, 1}); }
    void stage_rows() { test::stage(cache, tokens, begin, begin + n_rows); }
    void stage_pages() { append.stage_pages(cache, {&segment, 1}, cache.layers(), pool); }
    void commit() { cpu::commit(cache, {&segment, 1}, pool); }
    void give_up() { cache.release_reserved({&segment, 1}); }

    Cache& cache;
    const Tokens& tokens;
    int begin;
    int n_rows;
    Segment segment{0, 0, n_rows};
    ThreadPool pool{1};
    cpu::Append append;
};

std::vector<uint8_t> state_of(Cache& cache, int seq = 0) {
    Cache* const parts[] = {&cache};
    std::vector<uint8_t> bytes(kv::state_size(parts, seq));
    kv::save_state(parts, seq, {}, bytes);
    return bytes;
}

template <class Body>
void for_each_shape(Body body) {
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            for (const int d : lengths.residual == 128 ? std::vector{64, 96} : std::vector{64}) {
                const Shape shape{
                    .type_k = type, .type_v = type, .lengths = lengths, .head_size = d, .n_layer = 2, .n_head_kv = 2};
                if (shape.valid()) {
                    SCOPED_TRACE(shape.text());
                    body(shape);
                }
            }
        }
    }
}

bool operator==(const kv::HeadTable& a, const kv::HeadTable& b) {
    return a.exponent == b.exponent && a.refined == b.refined && a.mu == b.mu;
}

// Staged pages equal the committed ones.
TEST(Staging, StagedPagesAreTheCommittedOnes) {
    size_t n_compared = 0;
    size_t n_tables = 0;
    for_each_shape([&](const Shape& shape) {
        struct Staged {
            kv::SideView view;
            kv::HeadTable table;
            std::vector<std::vector<uint8_t>> pages;
        };
        const Tokens tokens(shape, 700, 5);
        Cache cache(shape.config());
        int at = 0;
        for (const int n : {1, 90, 130, 1, 200, 31, 214, 33}) {
            Call call(cache, tokens, at, at + n);
            call.reserve();
            call.stage_rows();
            call.stage_pages();
            std::vector<Staged> staged;
            const auto for_each_view = [&](auto body) {
                for (const Side side : {Side::keys, Side::values}) {
                    for (int i = 0; i < shape.n_layer * shape.n_head_kv; ++i) {
                        body(side, i / shape.n_head_kv, i % shape.n_head_kv);
                    }
                }
            };
            for_each_view([&](Side side, int layer, int head) {
                const kv::SideView view = cache.view(side, call.segment, layer, head);
                ASSERT_EQ(view.length(), at);
                Staged& s = staged.emplace_back(Staged{view, *view.staged_table, {}});
                int n_leaving = 0;
                for (size_t i = 0; i < view.staged_pages.size(); ++i) {
                    n_leaving += view.staged_pages[i].count;
                    s.pages.emplace_back(view.staged_page(i), view.staged_page(i) + view.spec->format.page_bytes);
                }
                EXPECT_EQ(view.n_leaving, n_leaving);
                n_tables += view.staged_table != view.table;
            });
            const size_t n_pages_before[] = {cache.sequence(0).k.pages().size(), cache.sequence(0).v.pages().size()};
            call.commit();
            const Staged* s = staged.data();
            for_each_view([&](Side side, int layer, int head) {
                const kv::SideView view = cache.sequence(0).side(side).view(layer, head);
                EXPECT_EQ(view.n_paged, s->view.n_paged + s->view.n_leaving);
                // A q8_0 ring has its sinks as halves from the start; those after the pages do not count here.
                EXPECT_EQ(std::min(view.n_sinks, view.n_paged), s->view.n_sinks_after);
                EXPECT_TRUE(*view.table == s->table);
                size_t page = n_pages_before[side == Side::values];
                for (size_t i = 0; i < s->pages.size(); ++i) {
                    // The first staged run may continue the last page.
                    const bool continued = s->view.staged_pages[i].first > 0;
                    const std::vector<uint8_t>& bytes = s->pages[i];
                    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), view.page(continued ? page - 1 : page)));
                    page += continued ? 0 : 1;
                    ++n_compared;
                }
                EXPECT_EQ(page, view.pages.size());
                ++s;
            });
            at += n;
        }
    });
    EXPECT_GT(n_compared, 1000u);
    EXPECT_GT(n_tables, 50u);
}

TEST(Staging, LayerByLayerIsAllAtOnce) {
    for_each_shape([](const Shape& shape) {
        const Tokens tokens(shape, 400, 6);
        Cache once(shape.config());
        Cache layers(shape.config());
        int at = 0;
        for (const int n : {100, 200, 1, 99}) {
            test::append(once, 0, tokens, at, at + n);
            Call call(layers, tokens, at, at + n);
            call.reserve();
            call.stage_rows();
            for (int layer = 0; layer < shape.n_layer; ++layer) {
                call.append.stage_pages(layers, {&call.segment, 1}, {layer, layer + 1}, call.pool);
            }
            call.commit();
            at += n;
        }
        EXPECT_EQ(image_of(layers, 0).difference(image_of(once, 0)), "");
    });
}

// Checked in the saved state too, and for the next append.
TEST(Staging, WhatIsStagedAndGivenUpLeavesNoTrace) {
    for_each_shape([](const Shape& shape) {
        if (shape.head_size != 64) {
            return;
        }
        const Tokens tokens(shape, 600, 7);
        const Tokens others(shape, 600, 8);
        for (const int length : {0, 40, 233}) {
            Cache cache(shape.config());
            Cache calm(shape.config());
            if (length > 0) {
                test::append(cache, 0, tokens, 0, length);
                test::append(calm, 0, tokens, 0, length);
            }
            const auto before = test::rows_of(cache, 0, length);
            const int64_t bytes = cache.live_page_bytes();
            Call call(cache, others, length, length + 260);
            call.reserve();
            call.stage_rows();
            call.stage_pages();
            EXPECT_EQ(test::rows_of(cache, 0, length), before) << length;
            call.give_up();
            EXPECT_EQ(state_of(cache), state_of(calm)) << length;
            EXPECT_EQ(cache.live_page_bytes(), bytes);
            for (int at = length; at < 600; at += 179) {
                test::append(cache, 0, tokens, at, std::min(at + 179, 600));
                test::append(calm, 0, tokens, at, std::min(at + 179, 600));
                ASSERT_EQ(state_of(cache), state_of(calm)) << length << " " << at;
            }
        }
    });
}

// Every allocation of staging fails once; commit does not allocate.
TEST(Staging, FailsWithoutATraceAndCommitAllocatesNothing) {
    static_assert(noexcept(cpu::commit(std::declval<Cache&>(), {}, std::declval<ThreadPool&>())));
    static_assert(noexcept(std::declval<Cache&>().finish_append({})));
    for_each_shape([](const Shape& shape) {
        const Tokens tokens(shape, 400, 9);
        Cache cache(shape.config());
        int at = 0;
        int n_failures = 0;
        for (const int n : {30, 150, 1, 100, 32}) {
            Call call(cache, tokens, at, at + n);
            const std::vector<uint8_t> before = state_of(cache);
            for (int nth = 1;; ++nth) {
                bool failed = false;
                {
                    const FailingAllocation failing(nth);
                    try {
                        call.reserve();
                        call.stage_rows();
                        call.stage_pages();
                    } catch (const std::bad_alloc&) {
                        failed = true;
                    } catch (const Error&) {
                        failed = true;
                    }
                }
                if (!failed) {
                    break;
                }
                ++n_failures;
                call.give_up();
                ASSERT_EQ(state_of(cache), before) << at << ", allocation " << nth;
            }
            {
                const FailingAllocation failing(1, true);
                call.commit();
                EXPECT_FALSE(failing.happened()) << at;
            }
            at += n;
        }
        EXPECT_EQ(cache.length(0), at);
        EXPECT_GT(n_failures, 5);
        Cache calm(shape.config());
        test::append(calm, 0, tokens, 0, at);
        EXPECT_EQ(image_of(cache, 0).difference(image_of(calm, 0)), "");
    });
}

TEST(Staging, MoreRowsThanACallHasAreRefused) {
    Shape shape{.type_k = LK_CACHE_F16, .type_v = LK_CACHE_KIVI2};
    shape.n_ubatch = 16;
    Cache cache(shape.config());
    for (const Segment& rows : {Segment{0, 0, 17}, Segment{0, 16, 1}}) {
        test::expect_error(LK_INTERNAL_ERROR, {"a call of 17 rows: the cache stages up to 16 (n_ubatch)"}, [&] {
            cache.reserve({&rows, 1});
        });
    }
    const Segment most{1, 0, 16};
    cache.reserve({&most, 1});
    cache.release_reserved({&most, 1});
}

// The common step, in which no row leaves the ring.
TEST(Staging, OrdinaryStepsAllocateNothing) {
    const Shape shape{.type_k = LK_CACHE_KIVI2, .type_v = LK_CACHE_KIVI2, .lengths = {32, 128}, .n_layer = 2};
    const Tokens tokens(shape, 400, 10);
    Cache cache(shape.config());
    test::append(cache, 0, tokens, 0, 300);  // 140 rows in the ring, which flushes 32 at 160
    for (int at = 300; at < 318; ++at) {
        Call call(cache, tokens, at, at + 1);
        call.append.stage_pages(cache, {}, cache.layers(), call.pool);  // allocates the scratch
        const FailingAllocation failing(1, true);
        call.reserve();
        call.stage_rows();
        call.stage_pages();
        call.commit();
        EXPECT_FALSE(failing.happened()) << at;
    }
    EXPECT_EQ(cache.length(0), 318);
}

}  // namespace
}  // namespace lk
