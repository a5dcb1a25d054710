// Attention plans of passes, with host memory in place of device memory.
#include "backend/cuda/plan/pass_plan.h"

#include <cstring>

#include "support/kv_helpers.h"
#include "support/plugin_helpers.h"

namespace lk::cuda {
namespace {

using kv::Segment;
using kv::Side;
using test::plan_pass;
using test::Shape;
using test::Tokens;

using Runs = std::vector<lk_plugin_run>;

TEST(PassPlan, CommonRunsEndWhereTheSidesPart) {
    const lk_plugin_run whole{nullptr, 128, 0, 0};
    const lk_plugin_run part{nullptr, 40, 0, 0};
    const lk_plugin_run later{nullptr, 40, 8, 0};
    const lk_plugin_run moved{nullptr, 128, 0, 5};
    const auto common = [](const Runs& k, const Runs& v) {
        const CommonRuns c = count_common_runs(k, v);
        return std::pair{c.runs, c.tokens};
    };
    EXPECT_EQ(common(Runs({whole, whole, part}), Runs({whole, whole, part})), std::pair(3, 296));
    EXPECT_EQ(common(Runs({whole, whole}), Runs({whole})), std::pair(1, 128));
    EXPECT_EQ(common(Runs({whole, part}), Runs({whole, later})), std::pair(1, 128)) << "other places in the pages";
    EXPECT_EQ(common(Runs({whole, whole}), Runs({whole, part})), std::pair(1, 128));
    EXPECT_EQ(common(Runs({whole, moved, whole}), Runs({whole, whole, whole})), std::pair(1, 128)) << "keys turned";
    EXPECT_EQ(common(Runs({whole, whole}), Runs({moved, moved})), std::pair(2, 256)) << "values are not rotated";
    EXPECT_EQ(common({}, Runs({whole})), std::pair(0, 0));
}

// The run of an image is that of the sequence, from token `start` on.
void expect_run(const Run& run, const kv::PageRef& ref, int start) {
    EXPECT_EQ(run.block, ref.block->data.data());
    EXPECT_EQ(run.start, start);
    EXPECT_EQ(run.count, ref.count);
    EXPECT_EQ(run.first, ref.first);
    EXPECT_EQ(run.frame, ref.frame);
}

Shape shape_of(lk_cache_type type) {
    return {.type_k = type, .type_v = type, .head_size = 64, .n_layer = 2, .n_head_kv = 2, .n_seq = 6};
}

// Sequence s holds lengths[s] tokens.
void fill(kv::Cache& cache, const Shape& shape, const std::vector<int>& lengths) {
    for (size_t s = 0; s < lengths.size(); ++s) {
        const Tokens tokens(shape, lengths[s] + 1, static_cast<uint32_t>(s));
        if (lengths[s] > 0) {
            test::append(cache, static_cast<int>(s), tokens, 0, lengths[s]);
        }
    }
}

TEST(PassPlan, SegmentsAreGroupedByTheirKernels) {
    const Shape shape = shape_of(LK_CACHE_KIVI2);
    kv::Cache cache(shape.config());
    fill(cache, shape, {0, 500, 700, 900, 300});
    cache.remove(3, 10, 50, test::rotation(64));  // keys after the gap get a frame
    const std::vector<Segment> segments = {{2, 0, 5}, {1, 5, 1}, {3, 6, 1}, {0, 7, 4}, {4, 11, 30}};
    const PassPlan plan = plan_pass(cache, segments);
    ASSERT_EQ(plan.groups.size(), 3u);
    EXPECT_EQ(plan.n_rows, 41);
    std::vector<int> order;
    for (const size_t i : plan.segments) {
        order.push_back(segments[i].seq);
    }
    EXPECT_EQ(order, (std::vector<int>{1, 0, 3, 2, 4}));
    const auto& [exact, few, many] = std::tie(plan.groups[0], plan.groups[1], plan.groups[2]);
    EXPECT_EQ(std::pair(exact.first, exact.count), std::pair(size_t{0}, size_t{2}));
    EXPECT_EQ(std::pair(few.first, few.count), std::pair(size_t{2}, size_t{1}));
    EXPECT_EQ(std::pair(many.first, many.count), std::pair(size_t{3}, size_t{2}));
    EXPECT_TRUE(exact.exact);
    EXPECT_FALSE(few.exact);
    EXPECT_FALSE(many.exact);
    EXPECT_EQ(exact.max_rows, 4);
    EXPECT_EQ(many.max_rows, 30);
    EXPECT_EQ(many.max_page_runs, 0) << "flash reads the pages itself";
    EXPECT_EQ(many.max_tokens, 700 + 5 + cache.sequence(2).k.n_sinks());
    const kv::SequenceSide& k = cache.sequence(1).k;
    EXPECT_EQ(exact.max_page_runs, static_cast<int>(k.pages().size()));
    EXPECT_EQ(exact.max_tokens, 500 + 1 - k.n_paged() + k.n_sinks());
    const std::vector<AttentionRequest> requests =
        attention_requests(test::PluginPassView(cache, segments).cache, plan, 6, false);
    ASSERT_EQ(requests.size(), 3u) << "one per group";
    EXPECT_EQ(requests[2].n_segments, 2);
    const AttentionRequest& request = requests[0];
    EXPECT_EQ(request.query_rows(), 4 * 3);
    EXPECT_EQ(request.n_segments, 2);
    EXPECT_EQ(request.max_page_runs, exact.max_page_runs);
    EXPECT_TRUE(request.exact);
}

// A row may read pages that its own call stages; only flash does. The other types never do.
TEST(PassPlan, RowsThatReadStagedPagesAreForFlash) {
    for (const lk_cache_type type : test::kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        const Shape shape = shape_of(type);
        kv::Cache cache(shape.config());
        fill(cache, shape, {158, 157});  // 160 rows trigger a flush, which the next row sees
        const bool by_position = cache.spec(Side::keys).visibility == kv::Visibility::position;
        const auto plan_rows = [&](int seq, int n) {
            const Segment s{seq, 0, n};
            cache.reserve({&s, 1});
            return plan_pass(cache, {&s, 1});
        };
        EXPECT_EQ(plan_rows(0, 3).reads_staged, by_position);
        if (by_position) {
            EXPECT_FALSE(plan_rows(0, 3).groups[0].exact);
            EXPECT_TRUE(plan_rows(0, 2).groups[0].exact);
        }
        EXPECT_FALSE(plan_rows(0, 2).reads_staged) << "the flush follows the last row";
        EXPECT_FALSE(plan_rows(1, 3).reads_staged);
        EXPECT_EQ(plan_rows(1, 100).reads_staged, by_position);
    }
}

TEST(PassPlan, PagesOfF16AreExact) {
    const Shape shape = shape_of(LK_CACHE_F16);
    kv::Cache cache(shape.config());
    fill(cache, shape, {400, 400});
    cache.remove(1, 10, 50, test::rotation(64));
    const std::vector<Segment> segments = {{0, 0, 1}, {1, 1, 1}};
    const PassPlan plan = plan_pass(cache, segments);
    ASSERT_EQ(plan.groups.size(), 2u);
    EXPECT_TRUE(plan.groups[0].exact);
    EXPECT_FALSE(plan.groups[1].exact) << "some keys lie rotated for other positions";
    EXPECT_EQ(plan.groups[0].max_page_runs, 0);
    EXPECT_EQ(plan.groups[0].max_tokens, 401);
}

// Types whose pages only flash reads.
TEST(PassPlan, WithoutAPageKernelFlashReadsEverything) {
    Shape shape = shape_of(LK_CACHE_KIVI4);
    shape.type_v = LK_CACHE_Q8_0;
    kv::Cache cache(shape.config());
    fill(cache, shape, {400});
    const Segment segment{0, 0, 1};
    const PassPlan plan = plan_pass(cache, {&segment, 1});
    ASSERT_EQ(plan.groups.size(), 1u);
    EXPECT_FALSE(plan.groups[0].exact);
    EXPECT_EQ(plan.groups[0].max_page_runs, 0);
}

TEST(PassPlan, TheImageNamesWhatTheCacheHolds) {
    for (const lk_cache_type type : test::kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        const Shape shape = shape_of(type);
        kv::Cache cache(shape.config());
        fill(cache, shape, {0, 500, 700, 900, 300});
        cache.remove(3, 10, 50, test::rotation(64));
        const std::vector<Segment> segments = {{2, 0, 5}, {1, 5, 1}, {3, 6, 1}, {0, 7, 4}, {4, 11, 30}};
        for (const Segment& s : segments) {
            cache.reserve({&s, 1});  // allocates the rings of sequences without tokens
        }
        const test::PluginPassView pass(cache, segments);
        const PassPlan plan = pass.plan();
        std::vector<uint64_t> image(plan.bytes() / 8);
        ASSERT_EQ(plan.bytes() % 8, 0u);
        auto* const bytes = reinterpret_cast<uint8_t*>(image.data());
        write_pass(plan, pass.cache, pass.segments(), bytes, bytes);
        const auto* const works = reinterpret_cast<const SegmentWork*>(bytes);
        int n_staged = 0;
        const cuda::Run* next = reinterpret_cast<const cuda::Run*>(works + segments.size());
        for (size_t i = 0; i < segments.size(); ++i) {
            const Segment& s = segments[plan.segments[i]];
            const SegmentWork& w = works[i];
            EXPECT_EQ(w.row, s.row);
            EXPECT_EQ(w.n_rows, s.n_rows);
            EXPECT_EQ(w.length, cache.length(s.seq));
            EXPECT_EQ(w.page_runs, plan.page_runs[i].runs);
            EXPECT_EQ(w.page_tokens, plan.page_runs[i].tokens);
            for (const Side side : {Side::keys, Side::values}) {
                const kv::SequenceSide& held = cache.sequence(s.seq).side(side);
                const SideWork& one = side == Side::keys ? w.k : w.v;
                EXPECT_EQ(one.runs, next) << "runs lie one side after the other";
                ASSERT_EQ(one.n_runs, static_cast<int>(held.pages().size()));
                int start = 0;
                for (int r = 0; r < one.n_runs; ++r) {
                    expect_run(one.runs[r], held.pages()[r], start);
                    start += one.runs[r].count;
                }
                next += one.n_runs;
                EXPECT_EQ(start, one.n_paged);
                // Staged pages follow the pages, in the image and in the sequence.
                const cuda::StagedWork& staged = one.staged;
                EXPECT_EQ(staged.pages, next);
                ASSERT_EQ(staged.n_pages, static_cast<int>(held.staged_pages().size()));
                for (int r = 0; r < staged.n_pages; ++r) {
                    expect_run(staged.pages[r], held.staged_pages()[r], start);
                    start += staged.pages[r].count;
                }
                n_staged += staged.n_pages;
                next += staged.n_pages;
                EXPECT_EQ(start - one.n_paged, staged.n_leaving);
                EXPECT_EQ(staged.n_leaving, cache.plan_append(side, s).n_leave);
                EXPECT_EQ(staged.n_sinks, held.view(0, 0, s.n_rows).n_sinks_after);
                EXPECT_GE(staged.n_sinks, one.n_sinks);
                EXPECT_EQ(staged.tables, cache.plan_append(side, s).tables);
                EXPECT_EQ(one.n_paged, held.n_paged());
                EXPECT_EQ(one.n_ring, held.n_ring());
                EXPECT_EQ(one.ring_start, held.ring_start());
                EXPECT_EQ(one.n_sinks, held.n_sink_rows());
                EXPECT_EQ(one.ring, held.view(0, 0).ring);
                EXPECT_EQ(one.ring_blocks, held.view(0, 0).ring_blocks);
                EXPECT_EQ(one.sinks, held.sinks());
                EXPECT_EQ(one.tables, held.tables());
                EXPECT_EQ(staged.rows,
                          cache.staged(side) + static_cast<size_t>(s.row) * cache.spec(side).staged_width());
            }
        }
        EXPECT_EQ(reinterpret_cast<const uint8_t*>(next), bytes + plan.bytes());
        EXPECT_GT(n_staged, 0) << "no rows leave a ring";
    }
}

// The row of a decode step is itself among the youngest R, so one row of the ring is read from a staged page.
TEST(PassPlan, FlashReadsWindowsOfStockTypes) {
    for (const auto& [residual, sinks] : {std::pair{64, 4}, {64, 0}, {-1, 4}, {-1, 0}}) {
        Shape shape = shape_of(LK_CACHE_Q4_0);
        shape.windows = true;
        shape.lengths.residual = residual;
        shape.sinks = sinks;
        SCOPED_TRACE(format("residual %d, %d sinks", residual, sinks));
        const bool window = residual > 0 || sinks > 0;
        kv::Cache cache(shape.config());
        fill(cache, shape, {400, 20});
        const auto plan_row = [&](int seq) {
            const Segment one{seq, 0, 1};
            cache.reserve({&one, 1});
            const PassPlan plan = plan_pass(cache, {&one, 1});
            cache.release_reserved({&one, 1});
            return plan;
        };
        const PassPlan plan = plan_row(0);
        ASSERT_EQ(plan.groups.size(), 1u);
        EXPECT_EQ(plan.reads_staged, window);
        EXPECT_EQ(plan.groups[0].max_page_runs > 0, !window);
        EXPECT_EQ(plan_row(1).reads_staged, window && residual < 0) << "the ring is not full";

        const kv::SideSpec& spec = cache.spec(Side::keys);
        const SideShape side = side_shape(spec, 8);
        EXPECT_EQ(side.all_paged(), !window);
        const Segment rows{0, 0, 3};
        cache.reserve({&rows, 1});
        const kv::SideView view = cache.sequence(0).k.view(0, 0, 3);
        for (int row = 0; row < 3; ++row) {
            EXPECT_EQ(side.paged_for(view.n_paged, view.n_ring, row), window ? view.paged_for(row) : view.n_paged);
        }
    }
}

TEST(PassPlan, NothingIsLeftFromThePassBefore) {
    const Shape shape = shape_of(LK_CACHE_KIVI2);
    kv::Cache cache(shape.config());
    fill(cache, shape, {500, 300});
    const Segment long_one{0, 0, 4};
    const Segment short_one{1, 0, 1};
    const PassPlan first = plan_pass(cache, {&short_one, 1});
    plan_pass(cache, {&long_one, 1});
    const PassPlan again = plan_pass(cache, {&short_one, 1});
    EXPECT_EQ(again.n_rows, first.n_rows);
    EXPECT_EQ(again.n_runs, first.n_runs);
    EXPECT_EQ(again.groups.size(), first.groups.size());
    EXPECT_EQ(again.groups[0].max_tokens, first.groups[0].max_tokens);
    EXPECT_EQ(plan_pass(cache, {}).bytes(), 0u);
}

}  // namespace
}  // namespace lk::cuda
