// The cache alone: when tokens leave the ring, that only token order matters, and the sequence operations.
#include "kv/cache.h"

#include <limits>

#include "kv/codec/scalar_codec.h"
#include "quant/blocks.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::append;
using test::Image;
using test::image_of;
using test::kAllLengths;
using test::kAllTypes;
using test::Shape;
using test::Tokens;

// Expected number of tokens in pages after n tokens; groups start at multiples of G.
int expected_paged(lk_cache_type type, Side side, const test::Lengths& l, int n) {
    if (!kv::is_kivi(type)) {
        return n;
    }
    if (!is_paper(type)) {  // the ring holds R .. R+G-1 tokens
        return n < l.residual ? 0 : (n - l.residual) / l.group * l.group;
    }
    return side == Side::keys ? n - n % l.residual : std::max(0, n - l.residual);
}

// Every type on both sides, and two mixed pairs.
std::vector<Shape> all_shapes() {
    std::vector<Shape> shapes;
    for (const int d : {64, 80}) {
        for (const test::Lengths& lengths : kAllLengths) {
            for (const lk_cache_type type : kAllTypes) {
                shapes.push_back({.type_k = type, .type_v = type, .lengths = lengths, .head_size = d});
                shapes.back().residual_type = LK_ROWS_F16;  // ring_test.cpp has the others
            }
        }
        shapes.push_back({.type_k = LK_CACHE_KIVI4, .type_v = LK_CACHE_KIVI2, .head_size = d});
        shapes.push_back({.type_k = LK_CACHE_KIVI2_PAPER, .type_v = LK_CACHE_F16, .head_size = d});
    }
    std::erase_if(shapes, [](const Shape& shape) { return !shape.valid(); });
    return shapes;
}

// The refined recipes and f16: truncation at a group boundary gives the state of shorter input.
std::vector<Shape> small_shapes() {
    std::vector<Shape> shapes;
    for (const lk_cache_type type : kAllTypes) {
        shapes.push_back({.type_k = type, .type_v = type, .lengths = {32, 64}, .n_layer = 2, .n_head_kv = 2});
    }
    return shapes;
}

TEST(CacheAppend, OnlyTokenOrderMatters) {
    constexpr int kTokens = 520;
    for (Shape shape : all_shapes()) {
        SCOPED_TRACE(shape.text());
        shape.n_layer = 2;
        shape.n_head_kv = 2;
        shape.n_seq = 3;
        const Tokens tokens(shape, kTokens, 1);
        Cache cache(shape.config());
        append(cache, 0, tokens, 0, kTokens);
        std::mt19937 random(2);
        for (int n = 0; n < kTokens; ++n) {
            append(cache, 1, tokens, n, n + 1);
        }
        for (int n = 0; n < kTokens;) {
            const int next = std::min(kTokens, n + 1 + static_cast<int>(random() % 150));
            append(cache, 2, tokens, n, next);
            n = next;
        }
        EXPECT_EQ(image_of(cache, 1).difference(image_of(cache, 0)), "") << "token by token";
        EXPECT_EQ(image_of(cache, 2).difference(image_of(cache, 0)), "") << "random chunks";
    }
}

TEST(CacheAppend, RowsLeaveTheRingByTheRules) {
    constexpr int kTokens = 420;
    for (const Shape& shape : all_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, kTokens, 3);
        Cache cache(shape.config());
        for (int n = 1; n <= kTokens; ++n) {
            append(cache, 0, tokens, n - 1, n);
            const Sequence& s = cache.sequence(0);
            const int k = expected_paged(shape.type_k, Side::keys, shape.lengths, n);
            const int v = expected_paged(shape.type_v, Side::values, shape.lengths, n);
            ASSERT_EQ(cache.length(0), n);
            ASSERT_EQ(s.k.n_paged(), k) << n;
            ASSERT_EQ(s.k.n_ring(), n - k) << n;
            ASSERT_EQ(s.v.n_paged(), v) << n;
            ASSERT_EQ(s.v.n_ring(), n - v) << n;
            ASSERT_EQ(s.k.pages().size(), (k + 127u) / 128) << n;
            ASSERT_EQ(s.v.pages().size(), (v + 127u) / 128) << n;
        }
    }
}

TEST(CacheAppend, RingAndSinksAreExact) {
    for (Shape shape : all_shapes()) {
        SCOPED_TRACE(shape.text());
        shape.residual_type = LK_ROWS_F16;
        const Tokens tokens(shape, 400, 4);
        Cache cache(shape.config());
        append(cache, 0, tokens, 0, 400);
        const Sequence& s = cache.sequence(0);
        for (const bool keys : {true, false}) {
            const SequenceSide& side = keys ? s.k : s.v;
            const lk_cache_type type = keys ? shape.type_k : shape.type_v;
            EXPECT_EQ(side.n_sinks(), !is_kivi(type) || is_paper(type) ? 0 : 4);
            for (int t = 0; t < 400; ++t) {
                if (t >= side.n_sinks() && t < side.n_paged() &&
                    cache.spec(keys ? Side::keys : Side::values).format.quantized()) {
                    continue;
                }
                const std::vector<float> row = test::cached_row(side.view(0, 0), t);
                const float* given = (keys ? tokens.k[0] : tokens.v[0]).data() + t * shape.head_size;
                for (int c = 0; c < shape.head_size; ++c) {
                    const float stored = type == LK_CACHE_F32    ? given[c]
                                         : type == LK_CACHE_BF16 ? bf16_to_float(rounded_bf16(given[c]))
                                                                 : half_to_float(float_to_half(given[c]));
                    ASSERT_EQ(row[c], stored) << t;
                }
            }
        }
    }
}

TEST(CacheTruncate, IntoTheRingAsIfTheTokensNeverCame) {
    for (const Shape& shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 300, 5);
        const Tokens others(shape, 300, 6);
        for (const int n : {30, 200, 250}) {
            Cache cache(shape.config());
            append(cache, 0, tokens, 0, n);
            append(cache, 1, tokens, 0, n);
            // The most rows that evict nothing; one more may evict the oldest.
            const Sequence& s = cache.sequence(0);
            int more = 0;
            while (expected_paged(shape.type_k, Side::keys, shape.lengths, n + more + 1) == s.k.n_paged() &&
                   expected_paged(shape.type_v, Side::values, shape.lengths, n + more + 1) == s.v.n_paged()) {
                ++more;
            }
            append(cache, 0, others, n, n + more);
            cache.truncate(0, n);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << n;
            append(cache, 0, tokens, n, 300);
            append(cache, 1, tokens, n, 300);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << n;
        }
    }
}

TEST(CacheTruncate, AtAGroupBoundaryAsIfTheTokensNeverCame) {
    for (const Shape& shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 500, 7);
        const Tokens others(shape, 500, 8);
        for (const int n_keep : {64, 128, 256, 320}) {  // multiples of G; for paper keys also of R
            Cache cache(shape.config());
            append(cache, 0, tokens, 0, n_keep + 96);
            append(cache, 0, others, n_keep + 96, 500);
            cache.truncate(0, n_keep);
            EXPECT_EQ(cache.length(0), n_keep);
            append(cache, 0, tokens, n_keep, 500);
            append(cache, 1, tokens, 0, 500);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << n_keep;
        }
    }
}

TEST(CacheTruncate, InsideAGroupTheRestKeepsItsCodes) {
    for (const Shape& shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 700, 9);
        for (const int n_keep : {37, 127, 129, 145, 300}) {
            Cache cache(shape.config());
            append(cache, 0, tokens, 0, 420);
            const auto before = test::rows_of(cache, 0, n_keep);
            cache.copy(0, 1);
            const Image copy = image_of(cache, 1);
            cache.truncate(0, n_keep);
            ASSERT_EQ(cache.length(0), n_keep);
            ASSERT_EQ(cache.sequence(0).v.length(), n_keep);
            EXPECT_EQ(test::rows_of(cache, 0, n_keep), before) << n_keep;
            append(cache, 0, tokens, 420, 700);
            EXPECT_EQ(cache.length(0), n_keep + 280);
            EXPECT_EQ(test::rows_of(cache, 0, n_keep), before) << n_keep << ", after later appends";
            EXPECT_EQ(image_of(cache, 1).difference(copy), "") << "the copy made before";
            cache.truncate(0, n_keep / 2);
            append(cache, 0, tokens, 100, 300);
            const auto half = test::rows_of(cache, 0, n_keep / 2);
            cache.truncate(1, n_keep / 2);
            EXPECT_EQ(test::rows_of(cache, 1, n_keep / 2), half) << "cut twice";
        }
    }
}

TEST(CacheTruncate, ToSinksAndToZero) {
    for (const Shape& shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 300, 10);
        const Tokens others(shape, 300, 11);
        Cache cache(shape.config());
        for (const int n_keep : {4, 2, 0}) {
            append(cache, 0, others, 0, 300);
            cache.truncate(0, n_keep);
            const auto kept = test::rows_of(cache, 0, n_keep);
            append(cache, 0, tokens, n_keep, 300);
            EXPECT_EQ(cache.length(0), 300);
            EXPECT_EQ(test::rows_of(cache, 0, n_keep), kept) << n_keep;
            if (n_keep > 0) {
                cache.truncate(0, 0);
            }
        }
        append(cache, 1, tokens, 0, 300);
        EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << "emptied sequence against a new one";
    }
}

// The remaining tokens are unchanged, except that keys are rotated to their new positions.
TEST(CacheRemove, KeepsTheOtherTokens) {
    for (const lk_cache_type type : kAllTypes) {
        const Shape shape{.type_k = type, .type_v = type, .n_layer = 2, .n_head_kv = 2, .residual_type = LK_ROWS_F16};
        const Tokens tokens(shape, 900, 3);
        for (const auto& [begin, end] :
             {std::pair{0, 1}, {2, 5}, {0, 130}, {100, 101}, {5, 600}, {600, 650}, {120, 700}}) {
            kv::Cache cache(shape.config());
            append(cache, 0, tokens, 0, 700);
            cache.copy(0, 1);
            const test::Image untouched = test::image_of(cache, 1);
            auto before = test::rows_of(cache, 0, 700);
            cache.remove(0, begin, end, test::rotation(shape.head_size));
            EXPECT_EQ(test::image_of(cache, 1).difference(untouched), "") << "a copy is another sequence";
            const int n = 700 - (end - begin);
            ASSERT_EQ(cache.length(0), n);
            const auto after = test::rows_of(cache, 0, n);
            const size_t n_keys = 4;  // layers * heads
            for (size_t i = 0; i < 2 * n_keys; ++i) {
                for (int t = 0; t < n; ++t) {
                    std::vector<float>& expected = before[i * 700 + (t < begin ? t : t + end - begin)];
                    if (i < n_keys && t >= begin) {
                        kv::rotate_heads(test::rotation(shape.head_size), begin - end, expected.data(), 1,
                                         shape.head_size);
                    }
                    const std::vector<float>& row = after[i * n + t];
                    double largest = 0;
                    double error = 0;
                    for (size_t c = 0; c < row.size(); ++c) {
                        largest = std::max(largest, std::fabs(static_cast<double>(expected[c])));
                        error = std::max(error, std::fabs(static_cast<double>(row[c]) - expected[c]));
                    }
                    ASSERT_LE(error, 1e-3 * largest)
                        << shape.text() << ", [" << begin << ", " << end << "), part " << i << ", token " << t;
                }
            }
        }
    }
}

TEST(CacheRemove, CountsSharedTokensOnce) {
    const Shape shape{.type_k = LK_CACHE_F16, .type_v = LK_CACHE_F16};
    const Tokens tokens(shape, 600, 3);
    kv::Cache cache(shape.config());
    append(cache, 0, tokens, 0, 512);
    cache.copy(0, 1);
    cache.remove(1, 100, 300, test::rotation(shape.head_size));
    EXPECT_EQ(cache.usage().n_tokens, 512u + 312u);
    EXPECT_EQ(cache.usage().exact_bytes, 512u * 64 * 2 * 2);
}

TEST(CacheCopy, SharesFullPagesAndDiverges) {
    for (Shape shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        shape.n_seq = 4;
        const Tokens tokens(shape, 700, 12);
        const Tokens others(shape, 700, 13);
        for (const int n : {20, 129, 300, 345}) {
            Cache cache(shape.config());
            append(cache, 0, tokens, 0, n);
            const Image source = image_of(cache, 0);
            append(cache, 1, others, 0, 50);
            cache.copy(0, 1);
            EXPECT_EQ(image_of(cache, 1).difference(source), "");
            const auto pages = [&](int seq) { return cache.sequence(seq).k.pages(); };
            for (size_t i = 0; i < pages(0).size(); ++i) {
                EXPECT_EQ(pages(0)[i].block == pages(1)[i].block, pages(0)[i].count == kPageTokens) << n << " " << i;
            }
            append(cache, 1, others, n, 700);
            EXPECT_EQ(image_of(cache, 0).difference(source), "") << "the source is unchanged";
            append(cache, 0, tokens, n, 700);
            append(cache, 2, tokens, 0, 700);
            append(cache, 3, tokens, 0, n);
            append(cache, 3, others, n, 700);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 2)), "") << n;
            EXPECT_EQ(image_of(cache, 1).difference(image_of(cache, 3)), "") << n;
        }
    }
}

TEST(CacheCopy, SnapshotGoesBack) {
    for (const Shape& shape : small_shapes()) {
        SCOPED_TRACE(shape.text());
        const Tokens tokens(shape, 600, 14);
        Cache cache(shape.config());
        append(cache, 0, tokens, 0, 333);
        const Image before = image_of(cache, 0);
        Sequence snapshot = cache.snapshot(0);
        append(cache, 0, tokens, 333, 600);
        cache.truncate(0, 40);
        append(cache, 0, tokens, 100, 333);
        cache.swap(0, snapshot);
        EXPECT_EQ(image_of(cache, 0).difference(before), "");
        append(cache, 0, tokens, 333, 600);
        append(cache, 1, tokens, 0, 600);
        EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "");
    }
}

TEST(CacheErrors, FullNamesUsedAndNeeded) {
    Shape shape;
    shape.n_ctx = 600;
    Cache cache(shape.config());
    const Tokens tokens(shape, 512, 15);
    append(cache, 0, tokens, 0, 512);
    EXPECT_NO_THROW(cache.check_room(88));
    test::expect_error(LK_CACHE_FULL, {"512 of 600", "89 more"}, [&] { cache.check_room(89); });
    cache.truncate(0, 100);
    EXPECT_NO_THROW(cache.check_room(500));
    cache.truncate(0, 0);
    append(cache, 0, tokens, 0, 356);
    cache.copy(0, 1);  // the one full page of 128 tokens counts once
    test::expect_error(LK_CACHE_FULL, {"584 of 600", "17 more"}, [&] { cache.check_room(17); });
}

TEST(CacheErrors, BrokenRowsChangeNothing) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const lk_cache_type type : kAllTypes) {
        Shape shape{.type_k = type, .type_v = type, .lengths = {32, 32}, .n_layer = 2, .n_head_kv = 2};
        Cache cache(shape.config());
        const Tokens tokens(shape, 200, 16);
        append(cache, 0, tokens, 0, 150);
        const Image before = image_of(cache, 0);
        const int64_t bytes = cache.live_page_bytes();
        for (const float bad : {kNan, kInfinity, -kInfinity, 65520.0f, -1e9f}) {  // 65520 rounds to infinity in half
            if (cache.spec(Side::keys).format.floats() && std::isfinite(bad)) {
                continue;
            }
            Tokens broken = tokens;
            broken.v[1][180 * broken.width + 127] = bad;
            test::expect_error(LK_NUMERIC_ERROR, {"layer 1", "value"}, [&] { append(cache, 0, broken, 150, 200); });
            broken.k[1][199 * broken.width] = bad;
            test::expect_error(LK_NUMERIC_ERROR, {"layer 1", "key"}, [&] { append(cache, 0, broken, 150, 200); });
            const Segment segment{0, 0, 50};
            cache.release_reserved({&segment, 1});
            EXPECT_EQ(image_of(cache, 0).difference(before), "") << bad;
            EXPECT_EQ(cache.live_page_bytes(), bytes);
        }
        Tokens largest = tokens;
        largest.k[0][160 * largest.width] = 65519.0f;
        EXPECT_NO_THROW(append(cache, 0, largest, 150, 200));
    }
}

// Rows whose rotated elements overflow a half.
TEST(CacheErrors, RowsTooLongForBlocksAreRefused) {
    for (const lk_cache_type type : test::kBlockTypes) {
        const Shape shape{.type_k = type, .type_v = type};
        Tokens tokens(shape, 1, 3);
        Cache cache(shape.config());
        std::fill(tokens.k[0].begin(), tokens.k[0].end(), 60000.0f);
        test::expect_error(LK_NUMERIC_ERROR, {"key", "beyond 65504"}, [&] { append(cache, 0, tokens, 0, 1); });
        std::fill(tokens.k[0].begin(), tokens.k[0].end(), 8000.0f);  // a row of length 64000
        EXPECT_NO_THROW(append(cache, 0, tokens, 0, 1));
    }
}

// Commit can store every row that staging accepts, also groups that span the full range of halves.
TEST(CacheErrors, TheWidestGroupsAreStored) {
    static_assert(noexcept(cpu::commit(std::declval<Cache&>(), {}, std::declval<ThreadPool&>())));
    for (const lk_cache_type type :
         {LK_CACHE_F16, LK_CACHE_KIVI4, LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER}) {
        const Shape shape{.type_k = type, .type_v = type, .lengths = {32, 32}};
        Tokens tokens(shape, 300, 3);
        for (std::vector<float>* rows : {&tokens.k[0], &tokens.v[0]}) {
            for (size_t i = 0; i < rows->size(); ++i) {
                (*rows)[i] = (i * 2654435761u >> 7) % 2 == 0 ? 65504.0f : -65504.0f;
            }
        }
        Cache cache(shape.config());
        append(cache, 0, tokens, 0, 300);
        for (const std::vector<float>& row : test::rows_of(cache, 0, 300)) {
            for (const float x : row) {
                ASSERT_TRUE(std::isfinite(x)) << shape.text();
            }
        }
    }
}

TEST(CacheUsage, CountsWhatTheFormatsSay) {
    struct Row {
        lk_cache_type type;
        double k_bits, v_bits;
    };
    for (const Row& row : {Row{LK_CACHE_F16, 16, 16}, Row{LK_CACHE_KIVI4, 4.25, 4.25}, Row{LK_CACHE_KIVI3, 3.5, 3.125},
                           Row{LK_CACHE_KIVI2, 3, 2.125}, Row{LK_CACHE_KIVI4_PAPER, 5, 5},
                           Row{LK_CACHE_KIVI2_PAPER, 3, 3}, Row{LK_CACHE_F32, 32, 32}, Row{LK_CACHE_BF16, 16, 16},
                           Row{LK_CACHE_Q8_0, 8.5, 8.5}, Row{LK_CACHE_Q5_1, 6, 6}, Row{LK_CACHE_Q5_0, 5.5, 5.5},
                           Row{LK_CACHE_Q4_1, 5, 5}, Row{LK_CACHE_Q4_0, 4.5, 4.5}, Row{LK_CACHE_IQ4_NL, 4.5, 4.5}}) {
        const Shape shape{.type_k = row.type, .type_v = row.type, .lengths = {0, 128}, .n_layer = 2, .n_head_kv = 3};
        SCOPED_TRACE(shape.text());
        constexpr double kElements = 2 * 3 * 64;
        const Tokens tokens(shape, 700, 17);
        Cache cache(shape.config());
        EXPECT_EQ(cache.usage().allocated_bytes, 0u);
        append(cache, 0, tokens, 0, 700);
        const double rings = static_cast<double>(fixed_bytes(shape.config())) / shape.n_seq;
        const Sequence& s = cache.sequence(0);
        lk_cache_usage u = cache.usage();
        EXPECT_DOUBLE_EQ(u.k_bits_per_element, row.k_bits);
        EXPECT_DOUBLE_EQ(u.v_bits_per_element, row.v_bits);
        EXPECT_EQ(u.n_tokens, 700u);
        EXPECT_EQ(u.n_capacity, 4096u);
        EXPECT_EQ(u.f16_bytes, 700 * kElements * 2 * 2);
        const double paged = (s.k.n_paged() * row.k_bits + s.v.n_paged() * row.v_bits) * kElements / 8;
        const auto exact_of = [&](const SequenceSide& side, Side which) {
            return 2 * 3 * side.n_ring() * cache.spec(which).ring_row_bytes() + side.n_sinks() * kElements * 2;
        };
        const double exact = exact_of(s.k, Side::keys) + exact_of(s.v, Side::values);
        const bool f16 = !cache.spec(Side::keys).format.quantized();  // or another float
        EXPECT_EQ(u.quantized_bytes, f16 ? 0 : paged);
        EXPECT_EQ(u.exact_bytes, f16 ? paged : exact);
        EXPECT_EQ(u.n_quantized_k, f16 ? 0u : s.k.n_paged() - s.k.n_sinks());
        EXPECT_EQ(u.n_quantized_v, f16 ? 0u : s.v.n_paged() - s.v.n_sinks());
        const double block = 128 * kElements / 8;
        const double blocks = block * (row.k_bits * static_cast<double>(s.k.pages().size()) +
                                       row.v_bits * static_cast<double>(s.v.pages().size()));
        EXPECT_EQ(cache.live_page_bytes(), blocks);
        EXPECT_GE(u.allocated_bytes, rings + blocks);
        EXPECT_LE(u.allocated_bytes, rings + blocks + 8192);  // per-head tables: refined channels, centres

        cache.copy(0, 1);
        u = cache.usage();
        EXPECT_EQ(u.n_tokens, 1400u) << "shared pages count for each sequence";
        EXPECT_LT(u.quantized_bytes, f16 ? 1 : 1.4 * paged) << "but take memory once";
        cache.truncate(0, 0);
        cache.truncate(1, 0);
        EXPECT_EQ(cache.live_page_bytes(), 0);
        EXPECT_EQ(cache.usage().n_tokens, 0u);
    }
}

TEST(CacheConfigs, RefusalsNameWhatDoesNotFit) {
    struct Row {
        lk_status status;
        std::vector<std::string> parts;
        Shape shape;
    };
    const Row rows[] = {
        {LK_INVALID_ARGUMENT,
         {"residual is 100", "group (32)", "such as 96", "kivi2-paper"},
         {.type_k = LK_CACHE_KIVI2_PAPER, .lengths = {32, 100}}},
        {LK_INVALID_ARGUMENT, {"residual is -1", "at least 1"}, {.lengths = {32, -1}}},
        {LK_INVALID_ARGUMENT,
         {"residual is 64", "group (128)", "such as 128"},
         {.type_v = LK_CACHE_KIVI4_PAPER, .lengths = {128, 64}}},
        {LK_INVALID_ARGUMENT, {"refined is 9", "1 to 8", "-1 for none"}, {.refined = 9}},
        {LK_INVALID_ARGUMENT, {"refined is -2"}, {.refined = -2}},
        {LK_INVALID_ARGUMENT,
         {"residual_type is 3", "1 (f16) or 2 (q8_0)"},
         {.residual_type = static_cast<lk_row_type>(3)}},
        {LK_INVALID_ARGUMENT, {"group is 48", "16, 32, 64 or 128"}, {.lengths = {48, 96}}},
        {LK_INVALID_ARGUMENT, {"sinks is 33", "32"}, {.sinks = 33}},
        {LK_INVALID_ARGUMENT, {"sinks is -2"}, {.sinks = -2}},
        {LK_UNSUPPORTED, {"keys", "kivi2", "multiple of 16", "72", "f16"}, {.head_size = 72}},
        {LK_UNSUPPORTED,
         {"values", "kivi4", "72"},
         {.type_k = LK_CACHE_F16, .type_v = LK_CACHE_KIVI4, .head_size = 72}},
        {LK_UNSUPPORTED, {"264", "256"}, {.type_k = LK_CACHE_F16, .type_v = LK_CACHE_F16, .head_size = 264}},
        {LK_INVALID_ARGUMENT, {"n_ctx"}, {.n_ctx = 0}},
        {LK_INVALID_ARGUMENT, {"n_seq_max"}, {.n_seq = 0}},
        {LK_INVALID_ARGUMENT, {"n_ubatch"}, {.n_ubatch = 0}},
        {LK_INVALID_ARGUMENT, {"keys", "17"}, {.type_k = static_cast<lk_cache_type>(17)}},
    };
    for (const Row& row : rows) {
        test::expect_error(row.status, row.parts, [&] { Cache cache(row.shape.config()); });
    }
    EXPECT_NO_THROW(Cache(Shape{.type_k = LK_CACHE_F16, .type_v = LK_CACHE_F16, .head_size = 72}.config()));
}

}  // namespace
}  // namespace lk::kv
