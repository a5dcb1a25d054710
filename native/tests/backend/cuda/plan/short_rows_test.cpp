// Batch-invariant passes of short and long sequences: which of them are read in one launch. Host memory in place of
// device memory.
#include <algorithm>

#include "backend/cuda/plan/row_plan.h"
#include "support/kv_helpers.h"
#include "support/plugin_helpers.h"

namespace lk::cuda {
namespace {

using kv::Segment;
using test::Shape;
using test::Tokens;

AttentionLaunches launches_of(const AttentionRequest& request) {
    return plan_attention(request, [](const AttentionVariant&) { return 500; });
}

// Sequences of a pass, each with one row.
struct RowBatch {
    explicit RowBatch(const std::vector<int>& lengths, lk_cache_type type = LK_CACHE_KIVI2)
        : cache(Shape{.type_k = type,
                      .type_v = type,
                      .lengths = {64, 50},
                      .head_size = 64,
                      .n_head_kv = 2,
                      .n_seq = static_cast<int>(lengths.size())}
                    .config()) {
        for (int seq = 0; seq < static_cast<int>(lengths.size()); ++seq) {
            const Shape shape{.type_k = type, .type_v = type, .head_size = 64, .n_head_kv = 2};
            const Tokens tokens(shape, lengths[seq] + 1, static_cast<uint32_t>(seq));
            for (int at = 0; at < lengths[seq];) {
                const int n = std::min(lengths[seq] - at, 512);
                test::append(cache, seq, tokens, at, at + n);
                at += n;
            }
            segments.push_back({seq, seq, 1});
        }
        cache.reserve(segments);
    }
    std::vector<AttentionRequest> requests(int n_head, PassPlan* plan_out = nullptr) {
        const test::PluginPassView pass(cache, segments);
        const PassPlan plan = plan_rows(pass.cache, pass.segments());
        if (plan_out != nullptr) {
            *plan_out = plan;
        }
        return attention_requests(pass.cache, plan, n_head, true);
    }

    kv::Cache cache;
    std::vector<Segment> segments;
};

// A segment is read in one launch or in several because of its own length alone.
TEST(ShortRows, ShortSegmentsHaveAKernelOfTheirOwn) {
    const auto expect_whole = [](const AttentionRequest& r) {
        const AttentionLaunches launches = launches_of(r);
        EXPECT_EQ(launches.choice.rest.kernel, AttentionKernel::whole);
        EXPECT_EQ(launches.choice.rest.type, LK_CACHE_KIVI2) << "the instance that reads pages, even if there are none";
        EXPECT_EQ(launches.splits.all(), 1) << "no partial results";
    };
    RowBatch mixed({700, 20, 1500, 300, 626, 0, 560});
    PassPlan plan;
    const std::vector<AttentionRequest> requests = mixed.requests(2, &plan);
    ASSERT_EQ(requests.size(), 2u);
    EXPECT_EQ(requests[0].n_segments, 4);
    EXPECT_EQ(requests[1].n_segments, 3);
    expect_whole(requests[0]);
    EXPECT_EQ(launches_of(requests[1]).choice.pages.kernel, AttentionKernel::pages_row);
    EXPECT_EQ(requests[1].max_page_runs, 11);
    ASSERT_EQ(plan.groups.size(), 1u);
    EXPECT_EQ(plan.groups[0].n_short, 4u);
    EXPECT_EQ(plan.segments, (std::vector<size_t>{1, 3, 5, 6, 0, 2, 4})) << "in order among short and long ones";
    for (size_t i = 0; i < plan.segments.size(); ++i) {
        EXPECT_EQ(is_short(plan.page_runs[i].runs), i < 4);
    }

    RowBatch all_short({20, 300, 0});
    ASSERT_EQ(all_short.requests(2).size(), 1u);
    expect_whole(all_short.requests(2)[0]);
    RowBatch without_pages({20, 3});
    expect_whole(without_pages.requests(2)[0]);
    RowBatch all_long({700, 1500});
    ASSERT_EQ(all_long.requests(2).size(), 1u);
    EXPECT_EQ(launches_of(all_long.requests(2)[0]).choice.pages.kernel, AttentionKernel::pages_row);

    ASSERT_EQ(mixed.requests(8).size(), 1u) << "grouped heads have no kernel for short sequences";
    EXPECT_EQ(mixed.requests(8)[0].n_segments, 7);
    RowBatch halves({700, 20, 300}, LK_CACHE_F16);
    EXPECT_EQ(halves.requests(2).size(), 1u);
}

}  // namespace
}  // namespace lk::cuda
