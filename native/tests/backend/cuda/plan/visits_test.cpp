// The ranges that flash attention visits: every query sees every token once, as codes or as an exact row, by its
// bounds. Needs no GPU.
#include "backend/cuda/plan/visits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "backend/cuda/plan/segments.h"

namespace lk::cuda {
namespace {

// A side of a sequence and the bounds of its queries.
struct TestSide {
    SideShape shape{};
    int n_paged = 0;
    int n_ring = 0;
    int n_sinks = 0;
    bool coded = false;

    int bound(int row) const { return coded ? shape.paged_for(n_paged, n_ring, row) : 0; }
    SeenSide seen(int first_row, int last_row) const { return {bound(first_row), bound(last_row), n_sinks}; }
};

std::string text(const TestSide& s, int row) {
    return std::to_string(s.n_paged) + " paged, " + std::to_string(s.n_ring) + " in the ring, " +
           std::to_string(s.n_sinks) + " sinks, bound " + std::to_string(s.bound(row)) + ", " +
           std::to_string(s.shape.trigger) + " to " + std::to_string(s.shape.leave);
}

TestSide draw_side(std::mt19937& random, int length) {
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    TestSide s;
    s.coded = below(4) > 0;
    if (!s.coded) {
        return s;
    }
    constexpr int kGroups[] = {16, 32, 64, 128};
    s.shape.leave = kGroups[below(4)];
    s.shape.trigger = 1 + below(150) + s.shape.leave;
    s.shape.by_position = below(4) > 0;
    s.n_ring = std::min(length, below(s.shape.trigger));
    s.n_paged = length - s.n_ring;
    s.n_sinks = below(2) * below(17);
    return s;
}

TEST(Visits, EveryQuerySeesEveryTokenOnce) {
    std::mt19937 random(3);
    int n_double = 0;  // tokens visited twice
    for (int i = 0; i < 4000; ++i) {
        const int length = static_cast<int>(random() % 400);
        const TestSide k = draw_side(random, length);
        const TestSide v = random() % 2 == 0 ? k : draw_side(random, length);
        const int first_row = static_cast<int>(random() % 200);
        const int n_rows = 1 + static_cast<int>(random() % 128);
        const int window = random() % 3 == 0 ? 1 + static_cast<int>(random() % 300) : 0;
        const SeenSide k_seen = k.seen(first_row, first_row + n_rows - 1);
        const SeenSide v_seen = v.seen(first_row, first_row + n_rows - 1);
        const bool one_bound = k.coded == v.coded && k.n_paged == v.n_paged && k.n_ring == v.n_ring &&
                               k.shape.trigger == v.shape.trigger && k.shape.leave == v.shape.leave &&
                               k.shape.by_position == v.shape.by_position;
        // The page kernel reads the codes of some pages, if both sides have them.
        const int n_page_tokens =
            k.coded && v.coded && k.n_sinks == v.n_sinks ? std::min(k.n_paged, v.n_paged) / 128 * 128 : 0;
        const int n_tokens = length + first_row + n_rows;
        const int first_seen = window > 0 ? std::max(0, length + first_row + 1 - window) : 0;
        Visits visits{};
        visits.plan(k_seen, v_seen, one_bound, n_page_tokens, first_seen, n_tokens);
        for (int row = first_row; row < first_row + n_rows; ++row) {
            const int position = length + row;
            std::vector<int> seen(n_tokens);
            int start = 0;
            for (int range = 0; range < Visits::kRanges; ++range) {
                const unsigned rules = Visits::rules_of(range);
                RowBounds bounds{window > 0 ? position + 1 - window : 0, position};
                bounds.apply(rules, k.bound(row), v.bound(row));
                for (int n = visits.end[range] - start, t = visits.first[range]; n > 0; --n, ++t) {
                    ASSERT_GE(t, 0);
                    ASSERT_LT(t, n_tokens);
                    if (t < bounds.first || t > bounds.last) {
                        continue;
                    }
                    ++seen[t];
                    const bool k_codes = t >= k.n_sinks && t < k.bound(row);
                    const bool v_codes = t >= v.n_sinks && t < v.bound(row);
                    EXPECT_EQ((rules & kKeysBelow) != 0, k_codes) << "case " << i << ", range " << range;
                    EXPECT_EQ((rules & kValuesBelow) != 0, v_codes) << "case " << i << ", range " << range;
                }
                start = visits.end[range];
            }
            for (int t = 0; t < n_tokens; ++t) {
                const bool by_pages = t < n_page_tokens && t >= k.n_sinks && t >= v.n_sinks;
                const bool visible = t <= position && (window == 0 || t > position - window);
                ASSERT_EQ(seen[t], visible && !by_pages ? 1 : 0)
                    << "case " << i << ", token " << t << ", row " << row << ", length " << length << ", keys "
                    << text(k, row) << ", values " << text(v, row);
            }
        }
        n_double += visits.end[Visits::kRanges - 1] - (n_tokens - std::max(first_seen, n_page_tokens));
    }
    EXPECT_GT(n_double, 1000);
}

}  // namespace
}  // namespace lk::cuda
