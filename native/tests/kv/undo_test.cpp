// Going back: by the undo window, to marks, and inexactly.
#include "kv/cache.h"
#include "kv/split_cache.h"
#include "kv/state/state.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::append;
using test::image_of;
using test::kAllTypes;
using test::Shape;
using test::Tokens;
using test::Whole;

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (const test::Lengths& lengths : {test::Lengths{32, 64}, test::Lengths{16, 32}, test::Lengths{64, 64}}) {
        for (const lk_cache_type type : kAllTypes) {
            all.push_back({.type_k = type, .type_v = type, .lengths = lengths, .n_layer = 2, .n_head_kv = 2});
        }
        for (const lk_cache_type type : test::kBlockTypes) {
            all.push_back({.type_k = type, .type_v = type, .lengths = lengths, .sinks = 4, .windows = true});
        }
        all.push_back({.type_k = LK_CACHE_Q4_0,
                       .type_v = LK_CACHE_Q5_1,
                       .lengths = lengths,
                       .n_layer = 2,
                       .residual_type = LK_ROWS_Q8_0,
                       .undo = 40,
                       .windows = true});
        all.push_back({.lengths = lengths, .n_layer = 2, .residual_type = LK_ROWS_F16});
        all.push_back({.lengths = lengths, .n_layer = 2, .residual_type = LK_ROWS_Q8_0, .undo = 40});
        all.push_back({.type_k = LK_CACHE_KIVI4, .type_v = LK_CACHE_KIVI2_PAPER, .lengths = lengths});
    }
    for (Shape& shape : all) {
        shape.n_seq = 4;
    }
    return all;
}

// Content of a sequence that never had the tokens from n on, and of both after more tokens.
void expect_alone(Cache& cache, int seq, const Tokens& tokens, int n) {
    cache.truncate(3, 0);
    append(cache, 3, tokens, 0, n);
    ASSERT_EQ(image_of(cache, seq).difference(image_of(cache, 3)), "") << n;
    append(cache, seq, tokens, n, n + 150);
    append(cache, 3, tokens, n, n + 150);
    ASSERT_EQ(image_of(cache, seq).difference(image_of(cache, 3)), "") << n << " and more";
}

// Every pair of a kind of cache, group and residual, length and number of rows taken back.
TEST(Undo, TruncationByTheWindowIsExact) {
    constexpr size_t kLengths = 3;  // of shapes()
    const std::vector<Shape> all = shapes();
    const size_t n_kinds = all.size() / kLengths;
    ASSERT_EQ(n_kinds * kLengths, all.size());
    const int counts[] = {3, 70, 96, 97, 111, 112, 113, 128, 191, 192, 200, 256, 287, 300, 383};
    for (size_t s = 0; s < all.size(); ++s) {
        const Shape& shape = all[s];
        SCOPED_TRACE(shape.text());
        const size_t kind = s % n_kinds;
        const Tokens tokens(shape, 600, 1);
        const int most = shape.undo != 0 ? shape.undo : kDefaultUndo;
        Cache cache(shape.config());
        for (size_t i = 0; i < std::size(counts); ++i) {
            if ((kind + i) % kLengths != s / n_kinds) {
                continue;
            }
            const int n = counts[i];
            cache.truncate(0, 0);
            append(cache, 0, tokens, 0, n);
            EXPECT_LE(cache.sequence(0).exact_from(), std::max(0, n - most)) << n;
            const int backs[] = {1, 2, most / 2, most};
            const int back = std::min(backs[(kind + i + i / 4) % std::size(backs)], n - 1);
            cache.copy(0, 1);
            cache.truncate(1, n - back);
            expect_alone(cache, 1, tokens, n - back);
        }
    }
}

// A draft of up to 16 tokens is rejected again and again.
TEST(Undo, RejectedDraftsLeaveNoTrace) {
    for (const Shape& shape : shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 700, 2);
        const Tokens drafts(shape, 700, 3);
        Cache cache(shape.config());
        std::mt19937 random(4);
        for (int n = 0; n < 400;) {
            const int accepted = 1 + static_cast<int>(random() % 5);
            append(cache, 0, tokens, n, n + accepted);
            n += accepted;
            const int rejected = static_cast<int>(random() % (kDefaultUndo - 5));
            if (rejected > 0) {
                append(cache, 0, drafts, n, n + rejected);
                cache.truncate(0, n);
            }
        }
        expect_alone(cache, 0, tokens, cache.length(0));
    }
}

TEST(Undo, WithoutAWindowATruncationIsExactInTheRingOnly) {
    Shape shape{.lengths = {32, 64}, .n_seq = 4, .undo = -1};
    const Tokens tokens(shape, 600, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 200);  // 128 tokens in pages since length 192
    EXPECT_EQ(cache.sequence(0).exact_from(), 192);
    cache.copy(0, 1);
    cache.truncate(1, 192);
    expect_alone(cache, 1, tokens, 192);
    cache.truncate(0, 191);
    EXPECT_EQ(cache.sequence(0).exact_from(), 191);
    EXPECT_EQ(cache.sequence(0).k.n_paged(), 128) << "the codes remain";
}

// A fork shares the page whose last group is reopened: the page is copied before new rows are written.
TEST(Undo, AReopenedSharedPageIsCopied) {
    for (Shape shape : shapes()) {
        shape.n_ctx = 2000;
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 700, 6);
        const Tokens others(shape, 700, 7);
        Cache cache(shape.config());
        const int n = shape.lengths.residual + 128 + shape.lengths.group;  // a full page has left a ring of kivi2
        append(cache, 0, tokens, 0, n);
        cache.copy(0, 1);
        cache.truncate(1, n - 9);
        const test::Image kept = image_of(cache, 0);
        append(cache, 1, others, n - 9, n + 200);
        EXPECT_EQ(image_of(cache, 0).difference(kept), "");
        append(cache, 2, tokens, 0, n - 9);
        append(cache, 2, others, n - 9, n + 200);
        EXPECT_EQ(image_of(cache, 1).difference(image_of(cache, 2)), "");
        const auto pages = [](std::span<const PageRef> refs) { return refs.size(); };
        EXPECT_EQ(pages(cache.sequence(1).k.pages()), pages(cache.sequence(2).k.pages()));
    }
}

TEST(Undo, SavedStatesHaveTheWindow) {
    for (const Shape& shape : shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 600, 8);
        Cache cache(shape.config());
        for (const int n : {60, 97, 200, 257}) {
            cache.truncate(0, 0);
            append(cache, 0, tokens, 0, n);
            std::vector<uint8_t> state(state_size(Whole(cache), 0));
            save_state(Whole(cache), 0, {}, state);
            load_state(Whole(cache), 1, {}, state);
            EXPECT_EQ(cache.sequence(1).exact_from(), cache.sequence(0).exact_from());
            cache.truncate(1, n - kDefaultUndo);
            expect_alone(cache, 1, tokens, n - kDefaultUndo);
        }
    }
}

// A state of a cache with another window: the rows that fit are kept.
TEST(Undo, WindowsOfStatesMayDiffer) {
    for (const int from : {-1, 16, 64}) {
        for (const int to : {-1, 16, 64}) {
            Shape shape{.lengths = {32, 64}, .n_seq = 4, .undo = from};
            Cache source(shape.config());
            const Tokens tokens(shape, 600, 9);
            append(source, 0, tokens, 0, 200);
            std::vector<uint8_t> state(state_size(Whole(source), 0));
            save_state(Whole(source), 0, {}, state);
            shape.undo = to;
            Cache cache(shape.config());
            load_state(Whole(cache), 1, {}, state);
            const int exact = cache.sequence(1).exact_from();
            EXPECT_LE(exact, 200 - std::max(0, std::min(from, to)));
            cache.truncate(1, exact);
            expect_alone(cache, 1, tokens, exact);
        }
    }
}

TEST(Undo, RangesAreChecked) {
    for (const int undo : {-2, 65}) {
        Shape shape{.undo = undo};
        test::expect_error(LK_INVALID_ARGUMENT, {"cache.undo is " + std::to_string(undo), "1 to 64"},
                           [&] { Cache cache(shape.config()); });
    }
}

// ---- marks

SplitCache split_cache(const Shape& shape) {
    const CachePlace places[] = {{shape.n_layer - 1, &host_memory()}, {1, &host_memory()}};
    return {shape.config(), places};
}

void append(SplitCache& cache, int seq, const Tokens& tokens, int begin, int end) {
    int layer = 0;
    for (Cache* part : cache.parts()) {
        Tokens of_part = tokens;
        of_part.k.erase(of_part.k.begin(), of_part.k.begin() + layer);
        of_part.v.erase(of_part.v.begin(), of_part.v.begin() + layer);
        test::append(*part, seq, of_part, begin, end);
        layer += part->config().n_layer;
    }
}

std::string difference(const SplitCache& cache, int a, int b) {
    std::string text;
    for (const Cache* part : cache.parts()) {
        text += image_of(*part, a).difference(image_of(*part, b));
    }
    return text;
}

TEST(Marks, LeadBackExactly) {
    for (Shape shape : shapes()) {
        shape.n_layer = 2;
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 900, 10);
        const Tokens others(shape, 900, 11);
        SplitCache cache = split_cache(shape);
        for (const int n : {50, 130, 250}) {
            for (const int back : {0, 7}) {
                cache.truncate(0, 0);
                append(cache, 0, tokens, 0, n);
                cache.mark(0);
                append(cache, 0, others, n, n + 300);
                cache.copy(0, 1);
                for (const int seq : {0, 1}) {  // a copy has the marks too
                    EXPECT_EQ(cache.exact_length(seq, n - back), n - back);
                    cache.truncate(seq, n - back);
                    cache.truncate(3, 0);
                    append(cache, 3, tokens, 0, n - back);
                    EXPECT_EQ(difference(cache, seq, 3), "") << n;
                    append(cache, seq, tokens, n - back, n + 200);
                    append(cache, 3, tokens, n - back, n + 200);
                    EXPECT_EQ(difference(cache, seq, 3), "") << n << " and more";
                }
            }
        }
    }
}

TEST(Marks, LastUntilTheirTokensChange) {
    Shape shape{.lengths = {32, 64}, .n_layer = 2, .n_seq = 4};
    const Tokens tokens(shape, 900, 12);
    SplitCache cache = split_cache(shape);
    cache.mark(0);  // nothing to mark
    EXPECT_EQ(cache.usage().mark_bytes, 0u);
    append(cache, 0, tokens, 0, 130);
    cache.mark(0);
    cache.mark(0);  // there already
    const uint64_t one = cache.usage().mark_bytes;
    EXPECT_EQ(one, 2 * make_side_spec(shape.config(), Side::keys).ring_bytes());
    append(cache, 0, tokens, 130, 300);
    cache.mark(0);
    append(cache, 0, tokens, 300, 600);
    EXPECT_EQ(cache.usage().mark_bytes, 2 * one);
    cache.copy(0, 1);
    EXPECT_EQ(cache.usage().mark_bytes, 2 * one) << "copies share marks";
    EXPECT_EQ(cache.exact_length(0, 600), 600);
    EXPECT_EQ(cache.exact_length(0, 500), 300);
    EXPECT_EQ(cache.exact_length(0, 250), 130);
    EXPECT_EQ(cache.exact_length(0, 120), 120) << "by the undo window of the mark";
    EXPECT_EQ(cache.exact_length(0, 60), 0);
    cache.remove(0, 200, 210, test::rotation(64));  // the mark at 300 has tokens that moved
    EXPECT_EQ(cache.exact_length(0, 500), 130);
    cache.truncate(0, 99);
    EXPECT_EQ(cache.usage().mark_bytes, 2 * one) << "of the copy";
    cache.drop_mark(1, 300);
    EXPECT_EQ(cache.exact_length(1, 500), 130);
    cache.truncate(1, 0);
    EXPECT_EQ(cache.usage().mark_bytes, 0u);
}

}  // namespace
}  // namespace lk::kv
