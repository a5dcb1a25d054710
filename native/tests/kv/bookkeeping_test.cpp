// The cache's bookkeeping (token counts only) against an explicit list of tokens.
#include "kv/bookkeeping.h"

#include <gtest/gtest.h>

#include <random>

namespace lk::kv {
namespace {

constexpr lk_cache_type kTypes[] = {LK_CACHE_F16,   LK_CACHE_Q8_0,        LK_CACHE_KIVI4,
                                    LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER};

SideSpec make_spec(lk_cache_type type, Side side) {
    CacheConfig config;
    config.n_layer = 1;
    config.n_head_kv = 1;
    config.head_size = 64;
    config.params = {type, type, 32, 64, -1, 0, LK_ROWS_OWN, 0, 0};
    return make_side_spec(config, side);
}

// A page handle without memory: the bookkeeping only compares handles and checks whether a page is shared.
std::shared_ptr<PageBlock> make_handle() {
    const auto handle = std::make_shared<int>();
    return {handle, reinterpret_cast<PageBlock*>(handle.get())};
}

void append(SideLayout& layout, int n_rows) {
    std::vector<PageRef> staged;
    layout.place(n_rows, staged);
    int n_leave = 0;
    for (PageRef& run : staged) {
        n_leave += run.count;
        if (run.first == 0) {
            run.block = make_handle();
        }
    }
    EXPECT_EQ(n_leave, layout.leaving(n_rows));
    const Cursor at = layout.next_place();
    const size_t n_pages = n_leave == 0 ? layout.pages.size() : at.advance(n_leave - 1).block + 1;
    const int sinks = layout.sinks_after(n_rows);
    layout.append(n_rows, staged);
    EXPECT_EQ(layout.pages.size(), n_pages);
    EXPECT_EQ(layout.n_sinks, sinks);
}

template <class Body>
void for_each_spec(Body body) {
    for (const lk_cache_type type : kTypes) {
        for (const Side side : {Side::keys, Side::values}) {
            SCOPED_TRACE(testing::Message() << lk_cache_type_name(type) << (side == Side::keys ? " keys" : " values"));
            body(make_spec(type, side));
        }
    }
}

TEST(Bookkeeping, ManyRowsAtOnceLieAsOneByOne) {
    for_each_spec([](const SideSpec& spec) {
        for (const int n : {1, 3, 64, 95, 96, 97, 128, 200, 513}) {
            SideLayout once(spec);
            SideLayout single(spec);
            append(once, n);
            for (int i = 0; i < n; ++i) {
                append(single, 1);
            }
            EXPECT_EQ(once.length(), n);
            EXPECT_EQ(once.n_paged, single.n_paged) << n;
            EXPECT_EQ(once.n_sinks, single.n_sinks) << n;
            EXPECT_EQ(once.n_ring, single.n_ring) << n;
            EXPECT_EQ(once.ring_start, single.ring_start) << n;
            EXPECT_EQ(once.n_undo, single.n_undo) << n;
            EXPECT_EQ(once.tables_chosen, single.tables_chosen) << n;
            ASSERT_EQ(once.pages.size(), single.pages.size()) << n;
            for (size_t i = 0; i < once.pages.size(); ++i) {
                EXPECT_EQ(once.pages[i].count, single.pages[i].count) << n << " " << i;
            }
        }
    });
}

TEST(Bookkeeping, AMovedOrCutPageIsNotContinuedAndASharedOneIsCopied) {
    const SideSpec spec = make_spec(LK_CACHE_KIVI2, Side::keys);  // a ring of 96 flushes groups of 32
    SideLayout layout(spec);
    append(layout, 96);
    EXPECT_EQ(layout.next_place(), (Cursor{0, 32}));
    {
        const std::shared_ptr<PageBlock> other = layout.pages[0].block;
        EXPECT_EQ(layout.next_place(), (Cursor{0, 32}));
        EXPECT_TRUE(layout.continues_shared());
    }
    EXPECT_FALSE(layout.continues_shared());
    SideLayout moved = layout;
    moved.pages[0].block = make_handle();
    moved.remove(8, 9);
    EXPECT_EQ(moved.next_place(), (Cursor{2, 0})) << "moved";
    append(layout, 20);  // more than the undo window
    layout.truncate(31);
    EXPECT_EQ(layout.next_place(), (Cursor{1, 0})) << "cut inside a group";
    append(layout, 600);
    EXPECT_EQ(layout.pages[0].count, 31);
    EXPECT_EQ(layout.pages[1].first, 0);
}

TEST(Bookkeeping, TokensAreWhereAListSays) {
    for_each_spec([](const SideSpec& spec) {
        std::mt19937 random(11);
        SideLayout layout(spec);
        std::vector<int> ids;     // all tokens, in order
        std::vector<int> frames;  // shift of each token since it left the ring
        std::vector<int> ring(spec.ring_rows());
        int next_id = 0;
        const auto draw = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
        for (int step = 0; step < 300; ++step) {
            const int action = draw(4);
            if (action <= 1 || ids.empty()) {
                const int n = 1 + draw(action == 0 ? 150 : 8);
                for (int i = 0; i < n; ++i) {  // row by row through the ring
                    ring[layout.ring_row(layout.n_ring)] = next_id;
                    append(layout, 1);
                    ids.push_back(next_id++);
                    frames.push_back(0);
                }
            } else if (action == 2) {
                const int keep = draw(static_cast<int>(ids.size()) + 1);
                layout.truncate(keep);
                ids.resize(keep);
                frames.resize(keep);
            } else {
                const int begin = draw(static_cast<int>(ids.size()));
                const int end = std::min(begin + 1 + draw(40), static_cast<int>(ids.size()));
                std::vector<int> rest;  // the ring's rows; storage reorders them
                for (int i = 0; i < layout.n_ring; ++i) {
                    const int token = layout.n_paged + i;
                    if (token < begin || token >= end) {
                        rest.push_back(ring[layout.ring_row(i)]);
                    }
                }
                const int paged = layout.n_paged;
                const bool tail = end == layout.length();
                layout.remove(begin, end);
                if (!tail) {
                    std::copy(rest.begin(), rest.end(), ring.begin());
                }
                for (int i = end; i < paged; ++i) {
                    frames[i] += end - begin;
                }
                ids.erase(ids.begin() + begin, ids.begin() + end);
                frames.erase(frames.begin() + begin, frames.begin() + end);
            }
            ASSERT_EQ(layout.length(), static_cast<int>(ids.size())) << step;
            int token = 0;
            for (const PageRef& ref : layout.pages) {
                ASSERT_GT(ref.count, 0) << step;
                ASSERT_LE(ref.end(), kPageTokens) << step;
                for (int i = 0; i < ref.count; ++i, ++token) {
                    ASSERT_EQ(ref.frame, frames[token]) << step << " " << token;
                }
            }
            ASSERT_EQ(token, layout.n_paged) << step;
            ASSERT_LE(layout.n_sinks, std::min(spec.sinks, layout.n_paged)) << step;
            for (int i = 0; i < layout.n_ring; ++i) {
                ASSERT_EQ(ring[layout.ring_row(i)], ids[layout.n_paged + i]) << step << " " << i;
            }
        }
    });
}

// Counts of a layout that never had the tokens from n_keep on.
void expect_layout_of(const SideLayout& layout, const SideSpec& spec, int n_keep) {
    SideLayout alone(spec);
    append(alone, n_keep);
    ASSERT_EQ(layout.n_paged, alone.n_paged) << n_keep;
    ASSERT_EQ(layout.n_ring, alone.n_ring) << n_keep;
    ASSERT_EQ(layout.n_sinks, alone.n_sinks) << n_keep;
    ASSERT_EQ(layout.tables_chosen, alone.tables_chosen) << n_keep;
    ASSERT_EQ(layout.next_place(), alone.next_place()) << n_keep;
}

TEST(Bookkeeping, TruncationByTheUndoWindowIsExact) {
    for_each_spec([](const SideSpec& spec) {
        SideLayout layout(spec);
        for (int length = 1; length < 500; ++length) {
            append(layout, 1);
            ASSERT_LE(layout.exact_from(), std::max(0, length - 16)) << length;
            for (int keep = std::max(1, layout.exact_from()); keep < length; ++keep) {
                SideLayout cut = layout;
                cut.truncate(keep);
                expect_layout_of(cut, spec, keep);
            }
        }
    });
}

TEST(Bookkeeping, ExactnessEndsAtAnInexactOperation) {
    const SideSpec spec = make_spec(LK_CACHE_KIVI2, Side::keys);  // R 64, G 32
    SideLayout layout(spec);
    append(layout, 200);  // 128 in pages, since length 192
    EXPECT_EQ(layout.exact_from(), 160);
    layout.truncate(150);
    EXPECT_EQ(layout.exact_from(), 150);
    append(layout, 3);
    EXPECT_EQ(layout.exact_from(), 150);
    layout.remove(10, 20);
    EXPECT_EQ(layout.exact_from(), 143);
    layout.truncate(0);
    append(layout, 95);
    EXPECT_EQ(layout.exact_from(), 0);
}

}  // namespace
}  // namespace lk::kv
