// Whether the launches of decode steps recur, so that one graph runs them, with host memory in place of device memory.
#include <gtest/gtest.h>

#include "backend/cuda/device/graph_cache.h"
#include "backend/cuda/plan/attention_plan.h"
#include "backend/cuda/plan/image_layout.h"
#include "support/kv_helpers.h"
#include "support/plugin_helpers.h"

namespace lk::cuda {
namespace {

using kv::Segment;
using test::Shape;
using test::Tokens;

constexpr int kLayers = 3;
constexpr int kQueryHeads = 8;
constexpr int kSlots = 132 * 5;  // thread blocks that run at once

struct NoGraph {
    explicit NoGraph(LaunchList& list) : n(list.size()) {}
    static bool update(LaunchList&, size_t) { return true; }

    size_t n;
};

// What the kernels of attention and staging are told. Lengths are in the image, not here.
struct AttentionArguments {
    const SegmentWork* segments;
    int64_t n_segments;
    int64_t max_rows;
    int64_t page_splits;
    int64_t splits;
    int64_t layer;
};

// Records the launches of a decode step that depend on the sequences.
void record(const test::PluginPassView& view, const uint8_t* image, LaunchList& list) {
    const PassPlan plan = view.plan();
    const ImageLayout layout(plan, view.append());
    ASSERT_TRUE(is_decode_step(plan, view.segments()));
    list.restart(plan.n_rows);
    static constexpr char kKernels[16] = {};
    for (int64_t layer = 0; layer < kLayers; ++layer) {
        const uint8_t* const sink_rows = image + layout.sink_rows;
        const LaunchArgument staged[] = {{&sink_rows, sizeof(sink_rows)}, {&layer, sizeof(layer)}};
        list.add({&kKernels[0], {1, 1, 1}, 128, 0}, staged);
        const auto* segments = reinterpret_cast<const SegmentWork*>(image + layout.plan);
        for (const AttentionRequest& request : attention_requests(view.cache, plan, kQueryHeads, false)) {
            const AttentionLaunches launches = plan_attention(request, [](const AttentionVariant&) { return kSlots; });
            const AttentionArguments arguments{
                segments, request.n_segments, request.max_rows, launches.splits.pages, launches.splits.rest, layer};
            segments += request.n_segments;
            const LaunchArgument attended[] = {{&arguments, sizeof(arguments)}};
            for (const auto& [variant, n_splits] : {std::pair{launches.choice.rest, launches.splits.rest},
                                                    {launches.choice.pages, launches.splits.pages}}) {
                if (n_splits > 0) {
                    list.add({&kKernels[1 + static_cast<int>(variant.kernel)],
                              {static_cast<unsigned>(attention_blocks(request, variant)),
                               static_cast<unsigned>(n_splits), static_cast<unsigned>(request.n_segments)},
                              128,
                              0},
                             attended);
                }
            }
            if (launches.splits.all() > 1) {
                list.add({&kKernels[15], {1, 1, 1}, 128, 0}, attended);
            }
        }
    }
}

// Decodes a token per sequence and step, from these lengths on. Returns how the steps ran.
GraphCounts decode(const Shape& shape, const std::vector<int>& lengths, int n_steps) {
    kv::Cache cache(shape.config());
    std::vector<Tokens> tokens;
    std::vector<Segment> segments;
    for (int seq = 0; seq < static_cast<int>(lengths.size()); ++seq) {
        tokens.emplace_back(shape, lengths[seq] + n_steps, static_cast<uint32_t>(seq));
        if (lengths[seq] > 0) {
            test::append(cache, seq, tokens.back(), 0, lengths[seq]);
        }
        segments.push_back({seq, seq, 1});
    }
    static const uint8_t image[1] = {};  // only its address counts
    GraphCache<NoGraph> graphs;
    LaunchList list;
    for (int step = 0; step < n_steps; ++step) {
        cache.reserve(segments);
        record(test::PluginPassView(cache, segments), image, list);
        graphs.prepare(list, [](LaunchList& l) { return std::make_unique<NoGraph>(l); });
        cache.release_reserved(segments);
        for (const Segment& s : segments) {
            const int at = lengths[s.seq] + step;
            test::append(cache, s.seq, tokens[s.seq], at, at + 1);
        }
    }
    return graphs.counts();
}

// Ring, pages and flushes of every sequence are at another point in every step.
TEST(DecodeGraph, RaggedStepsShareAGraph) {
    constexpr int kSteps = 1000;
    for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI4, LK_CACHE_F16, LK_CACHE_Q8_0}) {
        SCOPED_TRACE(lk_cache_type_name(type));
        const Shape shape{.type_k = type, .type_v = type, .n_head_kv = 2, .n_seq = 6};
        const GraphCounts c = decode(shape, {0, 37, 130, 255, 511, 900}, kSteps);
        std::printf("%s: %d queued, %d built, %d unchanged, %d updated (%d launches)\n", lk_cache_type_name(type),
                    static_cast<int>(c.queued), static_cast<int>(c.built), static_cast<int>(c.unchanged),
                    static_cast<int>(c.updated), static_cast<int>(c.launches));
        EXPECT_EQ(c.queued + c.built + c.unchanged + c.updated, static_cast<uint64_t>(kSteps));
        EXPECT_LE(c.queued, 4u) << "kinds of launches";
        EXPECT_EQ(c.built, c.queued);
        EXPECT_GE(c.unchanged, static_cast<uint64_t>(kSteps * 95 / 100));
    }
}

// One sequence, from its first token on: the number of splits grows with it.
TEST(DecodeGraph, StepsOfOneSequenceShareAGraph) {
    constexpr int kSteps = 1000;
    const Shape shape{.n_head_kv = 2, .n_seq = 1};
    const GraphCounts c = decode(shape, {0}, kSteps);
    std::printf("%d queued, %d built, %d unchanged, %d updated (%d launches)\n", static_cast<int>(c.queued),
                static_cast<int>(c.built), static_cast<int>(c.unchanged), static_cast<int>(c.updated),
                static_cast<int>(c.launches));
    EXPECT_LE(c.queued, 4u);
    EXPECT_GE(c.unchanged, static_cast<uint64_t>(kSteps * 95 / 100));
}

TEST(DecodeGraph, OffsetsOfTheImageDoNotDependOnLengths) {
    const Shape shape{.n_head_kv = 2, .n_seq = 3};
    kv::Cache cache(shape.config());
    const std::vector<Segment> segments = {{0, 0, 1}, {1, 1, 1}, {2, 2, 1}};
    cache.reserve(segments);
    const test::PluginPassView before(cache, segments);
    const ImageLayout empty(before.plan(), before.append());
    cache.release_reserved(segments);
    for (int seq = 0; seq < 3; ++seq) {
        const int n = 159 + 300 * seq;
        test::append(cache, seq, Tokens(shape, n, 1), 0, n);
    }
    cache.reserve(segments);
    const test::PluginPassView view(cache, segments);
    const PassPlan plan = view.plan();
    const AppendSchedule append = view.append();
    const ImageLayout full(plan, append);
    EXPECT_EQ(full.append_works, empty.append_works);
    EXPECT_EQ(full.sink_rows, empty.sink_rows);
    EXPECT_EQ(full.plan, empty.plan);
    ASSERT_GT(append.step_bytes(), 0u);
    // The parts lie one after the other.
    EXPECT_GE(full.sink_rows, full.append_works + append.work_bytes());
    EXPECT_GE(full.plan, full.sink_rows + 2 * segments.size());
    EXPECT_GE(full.steps, full.plan + plan.bytes());
    EXPECT_EQ(full.bytes, full.steps + append.step_bytes());
    for (const size_t offset : {full.append_works, full.plan, full.steps}) {
        EXPECT_EQ(offset % ImageLayout::kAlignment, 0u);
    }
}

// Prompts, and rows that read pages of their own pass, are queued launch by launch.
TEST(DecodeGraph, OnlyDecodeStepsAreRecorded) {
    const Shape shape{.n_seq = 2};
    kv::Cache cache(shape.config());
    const auto recorded = [&](int seq, int n) {
        const Segment s{seq, 0, n};
        cache.reserve({&s, 1});
        const test::PluginPassView view(cache, {&s, 1});
        const bool decode_step = is_decode_step(view.plan(), view.segments());
        cache.release_reserved({&s, 1});
        return decode_step;
    };
    EXPECT_TRUE(recorded(0, 1));
    EXPECT_TRUE(recorded(0, kFewRows));
    EXPECT_FALSE(recorded(0, kFewRows + 1));
    test::append(cache, 1, Tokens(shape, 158, 1), 0, 158);
    EXPECT_TRUE(recorded(1, 2)) << "the flush follows the last row";
    EXPECT_FALSE(recorded(1, 3));
}

}  // namespace
}  // namespace lk::cuda
