// Which tokens a thread block of flash attention visits, and in which order. C++17, because the kernel includes it too.
//
// A query reads tokens below its bound F from pages of codes and the others as exact rows (SideShape::paged_for); sinks
// are exact for every query. The queries of a block may have several bounds, which grow with the row. Tokens between
// the first and the last are visited twice: as codes, masked for the rows whose bound they are not below, and as exact
// rows, masked for the others.
#pragma once

#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// What the queries of a thread block read of one side.
struct SeenSide {
    int paged_first;  // tokens that the first and the last query read from pages of codes; 0: they read none
    int paged_last;
    int n_sinks;  // leading tokens that every query reads as exact rows

    LK_HD bool has_codes() const { return paged_last > n_sinks; }
};

// How a row sees a range of tokens, by its bounds of keys and of values.
enum VisitRule : unsigned { kKeysBelow = 1, kKeysFrom = 2, kValuesBelow = 4, kValuesFrom = 8 };

// Tokens [first, last] that a row sees.
struct RowBounds {
    int first;
    int last;

    LK_HD void apply(unsigned rules, int k_bound, int v_bound) {
        last = (rules & kKeysBelow) != 0 && k_bound <= last ? k_bound - 1 : last;
        last = (rules & kValuesBelow) != 0 && v_bound <= last ? v_bound - 1 : last;
        first = (rules & kKeysFrom) != 0 && k_bound > first ? k_bound : first;
        first = (rules & kValuesFrom) != 0 && v_bound > first ? v_bound : first;
    }
};

// The ranges in the order of visits: those with coded values come first. A place is a position in that order.
struct Visits {
    static constexpr int kRanges = 9;
    int first[kRanges];  // first token
    int end[kRanges];    // place after the range

    // Keys below a bound are codes, the others exact rows; values too. A side without a rule has sinks in the range, or
    // no codes at all.
    static LK_HD constexpr unsigned rules_of(int range) {
        constexpr unsigned long long kRules =
            (kKeysBelow | kValuesBelow) | kValuesBelow << 4 | (kKeysFrom | kValuesBelow) << 8 | kKeysBelow << 12 |
            (kKeysBelow | kValuesFrom) << 16 | static_cast<unsigned long long>(kKeysFrom) << 24 |
            static_cast<unsigned long long>(kValuesFrom) << 28 |
            static_cast<unsigned long long>(kKeysFrom | kValuesFrom) << 32;
        return static_cast<unsigned>(kRules >> (4 * range)) & 15u;
    }

    // one_bound: every query has the same bound on both sides.
    // n_page_tokens: leading tokens whose codes the page kernel reads.
    // Tokens [first_seen, n_tokens) are seen by some query.
    LK_HD void plan(const SeenSide& k, const SeenSide& v, bool one_bound, int n_page_tokens, int first_seen,
                    int n_tokens) {
        const int from = greater(first_seen, n_page_tokens);
        const int k_exact = exact_end(k, n_tokens);
        const int v_exact = exact_end(v, n_tokens);
        int range = 0;
        int place = 0;
        // Adds tokens [begin, stop); returns the token after them.
        const auto add = [&](int begin, int stop) {
            place += greater(0, stop - begin);
            first[range] = begin;
            end[range++] = place;
            return greater(begin, stop);
        };
        add(greater(from, greater(k.n_sinks, v.n_sinks)), lesser(k.paged_last, v.paged_last));
        int after = add(greater(from, v.n_sinks), lesser(k_exact, v.paged_last));
        add(greater(after, k.paged_first), one_bound ? 0 : v.paged_last);
        after = add(greater(from, k.n_sinks), lesser(v_exact, k.paged_last));
        add(greater(after, v.paged_first), one_bound ? 0 : k.paged_last);
        after = add(first_seen, lesser(k_exact, v_exact));
        add(greater(after, k.paged_first), v_exact);
        add(greater(after, v.paged_first), k_exact);
        after = greater(first_seen, greater(k_exact, v_exact));
        add(greater(after, greater(k.paged_first, v.paged_first)), n_tokens);
    }

private:
    static LK_HD int greater(int a, int b) { return a > b ? a : b; }
    static LK_HD int lesser(int a, int b) { return a < b ? a : b; }
    // Tokens below this one are exact for every query.
    static LK_HD int exact_end(const SeenSide& side, int n_tokens) {
        return side.paged_last > 0 ? lesser(side.n_sinks, n_tokens) : n_tokens;
    }
};

}  // namespace lk::cuda
