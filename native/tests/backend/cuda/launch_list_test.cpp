// Recorded launches, and the graphs that run them, with host objects in place of CUDA graphs.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "backend/cuda/device/graph_cache.h"
#include "backend/cuda/device/launch_list.h"

namespace lk::cuda {
namespace {

// Functions are told apart by address.
constexpr char kFunctions[8] = {};

const void* function(int i) {
    return &kFunctions[i];
}

struct Work {
    const void* pointer;
    int64_t number;
};

void add(LaunchList& list, const void* kernel, unsigned blocks, const Work& work, int last = 0) {
    const LaunchArgument arguments[] = {{&work, sizeof(work)}, {&last, sizeof(last)}};
    list.add({kernel, {blocks, 1, 1}, 128, 0}, arguments);
}

using Content = std::vector<std::pair<Launch, std::vector<std::byte>>>;

std::pair<Launch, std::vector<std::byte>> launch_of(LaunchList& list, size_t i) {
    std::vector<std::byte> bytes;
    void** const addresses = list.addresses(i);
    for (size_t a = 0; a < list.count_arguments(i); ++a) {
        const auto* const from = static_cast<const std::byte*>(addresses[a]);
        bytes.insert(bytes.end(), from, from + list.argument(i, a).size());
    }
    return {list[i], bytes};
}

Content content_of(LaunchList& list) {
    Content content;
    for (size_t i = 0; i < list.size(); ++i) {
        content.push_back(launch_of(list, i));
    }
    return content;
}

// Holds what a CUDA graph would run.
struct FakeGraph {
    explicit FakeGraph(LaunchList& list) : content(content_of(list)) {}

    bool update(LaunchList& list, size_t i) {
        if (refuses) {
            return false;
        }
        content[i] = launch_of(list, i);
        return true;
    }

    Content content;
    bool refuses = false;
};

std::unique_ptr<FakeGraph> make(LaunchList& list) {
    return std::make_unique<FakeGraph>(list);
}

LaunchList two_launches(int64_t number, unsigned blocks = 4) {
    LaunchList list;
    list.restart(1);
    add(list, function(0), blocks, {nullptr, 7});
    add(list, function(1), 2, {nullptr, number});
    return list;
}

TEST(LaunchList, ArgumentsAreCopiedAndAligned) {
    LaunchList list;
    list.restart(1);
    Work work{&list, 41};
    char small = 'a';
    const LaunchArgument arguments[] = {{&small, 1}, {&work, sizeof(work)}};
    list.add({function(0), {3, 4, 5}, 64, 1000}, arguments);
    work.number = small = 0;
    void** const addresses = list.addresses(0);
    EXPECT_EQ(*static_cast<const char*>(addresses[0]), 'a');
    EXPECT_EQ(static_cast<const Work*>(addresses[1])->number, 41);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(addresses[1]) % 16, 0u);
    EXPECT_EQ(list[0], (Launch{function(0), {3, 4, 5}, 64, 1000}));
}

TEST(LaunchList, ChangesNameTheLaunchesThatDiffer) {
    const LaunchList list = two_launches(1);
    EXPECT_EQ(list.changes_from(two_launches(1)), std::vector<size_t>());
    EXPECT_EQ(list.changes_from(two_launches(2)), std::vector<size_t>({1}));
    EXPECT_EQ(list.changes_from(two_launches(2, 5)), std::vector<size_t>({0, 1}));
    EXPECT_EQ(list.key(), two_launches(2, 5).key());
}

TEST(LaunchList, OtherFunctionsAreNoChange) {
    const LaunchList list = two_launches(1);
    LaunchList longer = two_launches(1);
    add(longer, function(2), 1, {});
    EXPECT_EQ(longer.changes_from(list), std::nullopt);
    EXPECT_NE(longer.key(), list.key());
    LaunchList swapped;
    swapped.restart(1);
    add(swapped, function(1), 2, {nullptr, 1});
    add(swapped, function(0), 4, {nullptr, 7});
    EXPECT_EQ(swapped.changes_from(list), std::nullopt);
    EXPECT_NE(swapped.key(), list.key());
    LaunchList more_rows;
    more_rows.restart(2);
    LaunchList one_row;
    one_row.restart(1);
    EXPECT_NE(more_rows.key(), one_row.key());
    LaunchList second_part;
    second_part.restart(1, 1);
    EXPECT_NE(second_part.key(), one_row.key());
}

// A matmul of cuBLAS is several nodes with unknown parameters.
TEST(LaunchList, AChangedMatmulOfCublasNeedsANewGraph) {
    const auto with_matmul = [](int64_t number) {
        LaunchList list;
        list.restart(1);
        add(list, nullptr, 0, {nullptr, number});
        return list;
    };
    EXPECT_EQ(with_matmul(1).changes_from(with_matmul(1)), std::vector<size_t>());
    EXPECT_EQ(with_matmul(1).changes_from(with_matmul(2)), std::nullopt);
}

TEST(GraphCache, TheFirstPassIsQueuedAndTheSecondBuildsAGraph) {
    GraphCache<FakeGraph> cache;
    LaunchList list = two_launches(1);
    EXPECT_EQ(cache.prepare(list, make), nullptr);
    EXPECT_EQ(list.size(), 2u) << "the caller queues the launches";
    ASSERT_NE(cache.prepare(list, make), nullptr);
    list = two_launches(1);
    ASSERT_NE(cache.prepare(list, make), nullptr);
    list = two_launches(3);
    FakeGraph* const graph = cache.prepare(list, make);
    ASSERT_NE(graph, nullptr);
    list = two_launches(3);
    EXPECT_EQ(graph->content, content_of(list));
    EXPECT_EQ(cache.counts().queued, 1u);
    EXPECT_EQ(cache.counts().built, 1u);
    EXPECT_EQ(cache.counts().unchanged, 1u);
    EXPECT_EQ(cache.counts().updated, 1u);
    EXPECT_EQ(cache.counts().launches, 1u);
}

TEST(GraphCache, ADriverThatRefusesAGraphLeavesTheLaunchesToTheCaller) {
    GraphCache<FakeGraph> cache;
    const auto refuse = [](LaunchList&) { return std::unique_ptr<FakeGraph>(); };
    for (int i = 0; i < 3; ++i) {
        LaunchList list = two_launches(i);
        EXPECT_EQ(cache.prepare(list, refuse), nullptr);
        LaunchList expected = two_launches(i);
        EXPECT_EQ(content_of(list), content_of(expected));
    }
    EXPECT_EQ(cache.counts().queued, 3u);
}

TEST(GraphCache, ARefusedUpdateBuildsAnotherGraph) {
    GraphCache<FakeGraph> cache;
    LaunchList list = two_launches(1);
    cache.prepare(list, make);
    list = two_launches(1);
    cache.prepare(list, make)->refuses = true;
    list = two_launches(2);
    FakeGraph* const graph = cache.prepare(list, make);
    ASSERT_NE(graph, nullptr);
    EXPECT_FALSE(graph->refuses);
    list = two_launches(2);
    EXPECT_EQ(graph->content, content_of(list));
    EXPECT_EQ(cache.counts().built, 2u);
}

// An error must not leave a graph behind that the cache takes for another list's.
TEST(GraphCache, AnErrorWhileBuildingLeavesNoGraph) {
    GraphCache<FakeGraph> cache;
    LaunchList list = two_launches(1);
    cache.prepare(list, make);
    EXPECT_THROW(cache.prepare(list, [](LaunchList&) -> std::unique_ptr<FakeGraph> { throw 1; }), int);
    list = two_launches(2);
    FakeGraph* const graph = cache.prepare(list, make);
    ASSERT_NE(graph, nullptr);
    list = two_launches(2);
    EXPECT_EQ(graph->content, content_of(list));
}

TEST(GraphCache, GraphsThatWereNotUsedForLongAreDropped) {
    GraphCache<FakeGraph> cache;
    const auto pass = [&](int n_rows) {
        LaunchList list;
        list.restart(n_rows);
        add(list, function(0), 1, {});
        return cache.prepare(list, make);
    };
    constexpr int most = GraphCache<FakeGraph>::kMost;
    for (int n_rows = 1; n_rows <= most; ++n_rows) {
        EXPECT_EQ(pass(n_rows), nullptr);
        EXPECT_NE(pass(n_rows), nullptr);
    }
    EXPECT_NE(pass(1), nullptr);
    EXPECT_EQ(pass(most + 1), nullptr) << "drops the graph of 2 rows";
    EXPECT_NE(pass(1), nullptr);
    EXPECT_EQ(pass(2), nullptr);
}

// Whatever passes come, a graph runs exactly what was recorded.
TEST(GraphCache, AGraphRunsWhatWasRecorded) {
    std::mt19937 random(1);
    const auto draw = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    GraphCache<FakeGraph> cache;
    LaunchList list;
    for (int pass = 0; pass < 20000; ++pass) {
        list.restart(1 + draw(3));
        const int n = 1 + draw(3);
        for (int i = 0; i < n; ++i) {
            const void* const kernel = draw(8) == 0 ? nullptr : function(draw(2));
            add(list, kernel, kernel == nullptr ? 0 : 1 + static_cast<unsigned>(draw(2)),
                {&kFunctions[draw(2)], draw(2)}, draw(2));
        }
        const Content recorded = content_of(list);
        const FakeGraph* const graph = cache.prepare(list, make);
        ASSERT_EQ(graph != nullptr ? graph->content : content_of(list), recorded);
    }
    EXPECT_GT(cache.counts().unchanged, 100u);
    EXPECT_GT(cache.counts().updated, 100u);
    EXPECT_GT(cache.counts().built, 100u);
}

}  // namespace
}  // namespace lk::cuda
