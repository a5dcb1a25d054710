// Selection of the CUDA attention kernels that read a ring: beside pages, or a short sequence as a whole.
#include "support/attention_requests.h"
#include "support/kv_helpers.h"

namespace lk::cuda {
namespace {

using test::request_of;

TEST(RingAttentionPlan, RowsOfAQ8RingHaveAKernelOfTheirOwn) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 64);
    r.exact = true;
    r.k.recipe.ring = r.v.recipe.ring = kv::RowType::f16;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::rows);
    r.v.recipe.ring = kv::RowType::q8_0;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::ring_rows) << "keys in f16";
    EXPECT_EQ(select_attention(r).rest.type, LK_CACHE_F16);
    r.k.recipe.ring = kv::RowType::q8_0;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::whole);
    EXPECT_EQ(select_attention(r).rest.type, LK_CACHE_F16) << "without pages";
    r.max_rows = 2;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::ring_rows);
    EXPECT_EQ(select_attention(r).rest.n_rows, kFewRows);
    r.n_head = 16;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::ring_rows) << "rows have different positions";
    r.exact = false;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::flash);
}

// One row of a segment, several query heads per KV head.
TEST(RingAttentionPlan, GroupedHeadsShareAQ8Ring) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.exact = true;
    for (const int group : {2, 3, 4, 5, 8, 9}) {
        r.n_head = 8 * group;
        for (const bool invariant : {false, true}) {
            r.invariant = invariant;
            const AttentionVariant rest = select_attention(r).rest;
            if (group > 8 && !invariant) {
                EXPECT_EQ(rest.kernel, AttentionKernel::flash) << group;
                continue;
            }
            EXPECT_EQ(rest.kernel, AttentionKernel::ring_group) << group;
            EXPECT_EQ(rest.width, 128);
            EXPECT_EQ(rest.n_rows, 4);
            EXPECT_EQ(attention_blocks(r, rest), 8 * ((group + 3) / 4));
        }
    }
    r.n_head = 32;
    r.v.recipe.ring = kv::RowType::f16;
    EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::ring_rows) << "values in f16";
}

// Sequences with at most a page per warp are read in one launch.
TEST(RingAttentionPlan, ShortSequencesAreReadWhole) {
    const auto select = [](const AttentionRequest& r) { return select_whole(r); };
    for (const lk_cache_type type : test::kAllTypes) {
        for (const int width : {64, 80, 128}) {
            AttentionRequest r = request_of(type, type, width);
            r.exact = true;
            r.max_page_runs = supports_pages(r.k, r.v) ? kAttentionWarps : 0;
            const bool whole = kv::is_kivi(type) && width != 80;
            EXPECT_EQ(select(r).kernel, whole ? AttentionKernel::whole : AttentionKernel::none);
        }
    }
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.exact = true;
    r.max_page_runs = 3;
    EXPECT_EQ(select(r).type, LK_CACHE_KIVI2);
    EXPECT_EQ(select(r).n_rows, 1);
    AttentionRequest other = r;
    other.max_page_runs = kAttentionWarps + 1;
    EXPECT_EQ(select(other).kernel, AttentionKernel::none) << "long";
    other = r;
    other.max_rows = 2;
    EXPECT_EQ(select(other).kernel, AttentionKernel::none);
    other = r;
    other.v.recipe.ring = kv::RowType::f16;
    EXPECT_EQ(select(other).kernel, AttentionKernel::none) << "rings of two types";
    other = r;
    other.exact = false;
    EXPECT_EQ(select(other).kernel, AttentionKernel::none) << "flash reads the other tokens";
    other = r;
    other.invariant = true;
    for (const int page_runs : {0, 3}) {
        other.max_page_runs = page_runs;
        EXPECT_EQ(select(other).kernel, AttentionKernel::whole);
        EXPECT_EQ(select(other).type, LK_CACHE_KIVI2) << "the same instance with and without pages";
    }
    other.max_page_runs = kAttentionWarps + 1;
    EXPECT_EQ(select(other).kernel, AttentionKernel::none);
}

// Blocks of more warps read short sequences, if they take at most half of the GPU. A batch-invariant pass always has
// the same.
TEST(RingAttentionPlan, FewShortSequencesHaveMoreWarps) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.exact = true;
    r.max_page_runs = 3;
    const auto warps_of = [](const AttentionRequest& request) {
        const AttentionLaunches launches = plan_attention(
            request, [](const AttentionVariant& variant) { return variant.n_warps == kWholeWarps ? 264 : 1056; });
        EXPECT_EQ(launches.choice.rest.kernel, AttentionKernel::whole);
        return launches.choice.rest.n_warps;
    };
    const int blocks = attention_blocks(r, select_whole(r));
    r.n_segments = 264 / 2 / blocks;
    EXPECT_EQ(warps_of(r), kWholeWarps);
    r.invariant = true;
    EXPECT_EQ(warps_of(r), kAttentionWarps);
    r.invariant = false;
    ++r.n_segments;
    EXPECT_EQ(warps_of(r), kAttentionWarps);
    --r.n_segments;
    r.max_page_runs = 0;
    r.max_tokens = kRowTile * (kWholeWarps - 1);
    EXPECT_EQ(warps_of(r), kWholeWarps);
    const auto is_divided = [](const AttentionRequest& request) {
        const AttentionLaunches launches = plan_attention(request, [](const AttentionVariant&) { return 264; });
        return launches.choice.rest.type == LK_CACHE_F16;  // the instance without pages
    };
    EXPECT_FALSE(is_divided(r));
    ++r.max_tokens;
    EXPECT_TRUE(is_divided(r)) << "without pages, more tokens are divided over blocks";
    --r.max_tokens;
    r.n_segments = 264;
    EXPECT_TRUE(is_divided(r));
}

// The ring's tokens and the others have tiles of their own, so that there may be one more tile than tokens need.
TEST(RingAttentionPlan, FixedSplitsCoverTheTilesOfBothKinds) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.exact = true;
    r.invariant = true;
    r.max_page_runs = kAttentionWarps + 1;
    for (const auto& [n_head, kernel] : {std::pair{8, AttentionKernel::whole}, {32, AttentionKernel::ring_group}}) {
        r.n_head = n_head;
        for (int ring = 0; ring < 600; ++ring) {
            const int halves = 5;  // sinks and the own token
            r.max_tokens = ring + halves;
            const AttentionChoice choice = select_attention(r);
            ASSERT_EQ(choice.rest.kernel, kernel);
            const int tiles = (ring + kRowTile - 1) / kRowTile + 1;
            EXPECT_GE(InvariantSplits::begin(split_attention(r, choice, 500, 500).rest), tiles) << ring;
        }
    }
}

}  // namespace
}  // namespace lk::cuda
