// Selection of CUDA attention kernels and their splits: host functions.
#include "backend/cuda/plan/attention_plan.h"

#include "support/attention_requests.h"
#include "support/kv_helpers.h"

namespace lk::cuda {
namespace {

using kv::Side;
using test::request_of;

// Stock types with a kernel for decoding; flash reads the others.
bool has_decoding_kernel(lk_cache_type type) {
    return type == LK_CACHE_Q8_0 || type == LK_CACHE_Q4_0;
}

TEST(AttentionPlan, ManyRowsAreForFlash) {
    for (const lk_cache_type type : test::kAllTypes) {
        for (const int head_size : {8, 64, 80, 96, 112, 128, 136, 256}) {
            AttentionRequest r = request_of(type, type, head_size);
            r.max_rows = 300;
            r.exact = true;
            const AttentionChoice choice = select_attention(r);
            EXPECT_EQ(choice.rest.kernel, AttentionKernel::flash);
            EXPECT_EQ(choice.pages.kernel, AttentionKernel::none);
            EXPECT_GE(choice.rest.width, head_size);
            EXPECT_EQ(choice.rest.n_rows, choice.rest.width == 256 ? 64 : 128);
            EXPECT_EQ(choice.rest.n_tokens, 64);
        }
    }
}

// The width is the smallest compiled one that holds the head.
TEST(AttentionPlan, FlashPadsHeads) {
    for (const auto& [head_size, width] :
         {std::pair{8, 64}, {64, 64}, {72, 96}, {96, 96}, {104, 128}, {128, 128}, {136, 256}, {256, 256}}) {
        EXPECT_EQ(select_attention(request_of(LK_CACHE_F16, LK_CACHE_F16, head_size)).rest.width, width);
    }
}

TEST(AttentionPlan, WarpsOfFlashSplitTokensOfFewRows) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.max_rows = kFlashSplitRows;
    EXPECT_EQ(select_attention(r).rest.n_rows, 16);
    EXPECT_EQ(attention_blocks(r, select_attention(r).rest), 8 * 3);
    r.max_rows = kFlashSplitRows + 1;
    EXPECT_EQ(select_attention(r).rest.n_rows, 128);
    EXPECT_EQ(attention_blocks(r, select_attention(r).rest), 8);
    r.n_head_kv = 2;  // 4 query heads per KV head
    r.max_rows = kFlashSplitRows / 4;
    EXPECT_EQ(select_attention(r).rest.n_rows, 16);
}

// On a device with wgmma, blocks of twice the rows read heads of 128 channels if there are more rows than those of
// flash.
TEST(AttentionPlan, MoreRowsThanABlockAreForWgmma) {
    for (const lk_cache_type type : test::kAllTypes) {
        AttentionRequest r = request_of(type, LK_CACHE_KIVI2, 128);
        r.max_rows = 129;
        EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::flash);
        r.wgmma = true;
        const AttentionVariant variant = select_attention(r).rest;
        EXPECT_EQ(variant.kernel, AttentionKernel::flash_wgmma);
        EXPECT_EQ(variant.width, 128);
        EXPECT_EQ(variant.n_rows, 256);
        EXPECT_EQ(variant.n_tokens, 64);
        EXPECT_EQ(attention_blocks(r, variant), 8);
        r.max_rows = 257;
        EXPECT_EQ(attention_blocks(r, variant), 8 * 2);
        r.max_rows = 128;
        EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::flash);
        r.n_head_kv = 4;  // 2 query heads per KV head
        EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::flash_wgmma);
        r.invariant = true;
        EXPECT_NE(select_attention(r).rest.kernel, AttentionKernel::flash_wgmma);
    }
    for (const int head_size : {64, 120, 136, 256}) {
        AttentionRequest r = request_of(LK_CACHE_F16, LK_CACHE_F16, head_size);
        r.max_rows = 300;
        r.wgmma = true;
        EXPECT_EQ(select_attention(r).rest.kernel, AttentionKernel::flash);
    }
}

TEST(AttentionPlan, FewExactRowsHaveAKernelOfTheirOwn) {
    for (const int head_size : {64, 80, 96, 128, 256}) {
        for (const int group : {1, 2, 4, 5}) {  // query heads per KV head
            AttentionRequest r = request_of(LK_CACHE_F16, LK_CACHE_F16, head_size);
            r.n_head = 8 * group;
            for (const bool exact : {false, true}) {
                r.exact = exact;
                const AttentionVariant rest = select_attention(r).rest;
                const bool rows = exact && group <= 4 && (head_size == 64 || head_size == 128);
                EXPECT_EQ(rest.kernel, rows ? AttentionKernel::rows : AttentionKernel::flash);
                if (rows) {
                    EXPECT_EQ(rest.width, head_size);
                    EXPECT_EQ(rest.n_rows, group == 1 ? 1 : 4);
                    EXPECT_EQ(rest.type, LK_CACHE_F16);
                }
            }
        }
    }
}

// Tokens outside KIVI pages are in full precision, for every page type.
TEST(AttentionPlan, PagesAndRowsShareATokensWork) {
    for (const lk_cache_type type : test::kAllTypes) {
        AttentionRequest r = request_of(type, type, 64);
        r.exact = true;
        r.max_page_runs = supports_pages(r.k, r.v) ? 5 : 0;
        const AttentionChoice choice = select_attention(r);
        const bool floats = type == LK_CACHE_F32 || type == LK_CACHE_BF16;
        EXPECT_EQ(choice.rest.kernel, floats                                 ? AttentionKernel::flash
                                      : r.k.recipe.ring == kv::RowType::q8_0 ? AttentionKernel::whole
                                                                             : AttentionKernel::rows);
        EXPECT_EQ(choice.rest.type, LK_CACHE_F16);
        EXPECT_EQ(choice.pages.kernel, kv::is_kivi(type)           ? AttentionKernel::pages_row
                                       : has_decoding_kernel(type) ? AttentionKernel::block_pages
                                                                   : AttentionKernel::none);
    }
}

TEST(AttentionPlan, PagesByTypeRowsAndHead) {
    for (const lk_cache_type type_k : test::kAllTypes) {
        for (const lk_cache_type type_v : test::kAllTypes) {
            for (const int head_size : {64, 96, 128, 256}) {
                for (const int group : {16, 32, 64, 128}) {
                    const kv::PageFormat k = kv::make_page_format(type_k, Side::keys, head_size, group);
                    const kv::PageFormat v = kv::make_page_format(type_v, Side::values, head_size, group);
                    const bool paired = type_k == type_v && (head_size == 64 || head_size == 128);
                    for (const int rows : {1, 2, 4, 8, 128}) {
                        const AttentionVariant pages = select_pages(k, v, rows);
                        AttentionKernel expected = AttentionKernel::none;
                        if (paired && has_decoding_kernel(type_k)) {
                            expected = AttentionKernel::block_pages;
                        } else if (paired && kv::is_kivi(type_k) && group >= 32) {
                            expected = rows == 1 ? AttentionKernel::pages_row : AttentionKernel::pages;
                        }
                        EXPECT_EQ(pages.kernel, expected)
                            << lk_cache_type_name(type_k) << " " << lk_cache_type_name(type_v) << " " << head_size;
                        EXPECT_EQ(supports_pages(k, v), expected != AttentionKernel::none);
                        if (expected == AttentionKernel::none) {
                            continue;
                        }
                        EXPECT_EQ(pages.type, type_k);
                        EXPECT_EQ(pages.width, head_size);
                        EXPECT_EQ(pages.n_rows, rows == 1 ? 1 : expected == AttentionKernel::pages && rows > 4 ? 8 : 4);
                        EXPECT_EQ(pages.n_tokens, expected == AttentionKernel::block_pages ? 128 : 512);
                    }
                }
            }
        }
    }
}

// The page kernels are compiled for the refined channels of each type's own recipe; flash reads other pages.
TEST(AttentionPlan, PagesByRecipe) {
    const auto select = [](lk_cache_type type, int group, int eighths) {
        kv::Recipe recipe = kv::own_recipe(type);
        recipe.group = group;
        recipe.refined_eighths = eighths;
        return select_pages(kv::make_page_format(type, Side::keys, 128, recipe),
                            kv::make_page_format(type, Side::values, 128, recipe), 4);
    };
    for (const int group : {32, 64, 128}) {
        EXPECT_EQ(select(LK_CACHE_KIVI4, group, 0).kernel, AttentionKernel::pages);
        for (int eighths = 0; eighths <= kv::kHeadEighths; ++eighths) {
            for (const auto& [type, own] : {std::pair{LK_CACHE_KIVI2, 3}, {LK_CACHE_KIVI3, 4}}) {
                EXPECT_EQ(select(type, group, eighths).kernel,
                          eighths == own ? AttentionKernel::pages : AttentionKernel::none)
                    << lk_cache_type_name(type) << " " << eighths;
            }
        }
    }
    EXPECT_EQ(select(LK_CACHE_KIVI2, 16, 3).kernel, AttentionKernel::none);
}

// The error names the operation, the types and the shape.
TEST(AttentionPlan, UnknownRequestsFail) {
    AttentionRequest large = request_of(LK_CACHE_KIVI4, LK_CACHE_F16, 264);
    large.max_rows = 3;
    test::expect_error(LK_UNSUPPORTED, {"attention", "kivi4", "f16", "264", "3 query rows"},
                       [&] { select_attention(large); });
    test::expect_error(LK_UNSUPPORTED, {"attention", "head sizes 84"},
                       [&] { select_attention(request_of(LK_CACHE_F16, LK_CACHE_F16, 84)); });
    AttentionRequest unknown = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 64);
    unknown.v.type = static_cast<lk_cache_type>(29);
    test::expect_error(LK_UNSUPPORTED, {"attention", "kivi2", "type 29"}, [&] { select_attention(unknown); });
    test::expect_error(LK_UNSUPPORTED, {"attention", "type 29"}, [&] { supports_pages(unknown.v, unknown.v); });
    AttentionRequest mixed = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI4, 64);
    mixed.max_page_runs = 1;  // supports_pages rejects this pair
    test::expect_error(LK_UNSUPPORTED, {"attention", "kivi2", "kivi4"}, [&] { select_attention(mixed); });
    AttentionRequest differ = request_of(LK_CACHE_F16, LK_CACHE_F16, 64);
    differ.v.head_size = 128;
    test::expect_error(LK_UNSUPPORTED, {"attention", "64 and 128"}, [&] { select_attention(differ); });
    test::expect_error(LK_INTERNAL_ERROR, {"attention", "pages_row", "kivi2", "96", "2 query rows"}, [] {
        fail_variant({AttentionKernel::pages_row, LK_CACHE_KIVI2, 96, 2, 512});
    });
}

TEST(AttentionPlan, SplitsFollowTheTokensOfEachKernel) {
    AttentionRequest r = request_of(LK_CACHE_KIVI2, LK_CACHE_KIVI2, 128);
    r.exact = true;
    r.max_tokens = 130;
    r.max_page_runs = 256;  // 32,768 tokens: 64 steps of a thread block
    const AttentionChoice choice = select_attention(r);
    const AttentionSplits splits = split_attention(r, choice, 528, 396);
    EXPECT_GE(splits.rest, 1);
    EXPECT_LE(splits.rest, 2);  // 130 tokens are two steps
    EXPECT_GT(8 * splits.pages, 198);
    EXPECT_LE(8 * splits.pages, 396);
    EXPECT_EQ(splits.all(), splits.rest + splits.pages);
    EXPECT_EQ(split_attention(r, choice, 528, 396).pages, splits.pages) << "the same for the same request";
    r.n_segments = 200;  // 1,600 thread blocks fill the device
    EXPECT_LE(split_attention(r, choice, 528, 396).pages, 2);
    r.max_page_runs = 0;
    EXPECT_EQ(split_attention(r, select_attention(r), 528, 396).pages, 0);
}

}  // namespace
}  // namespace lk::cuda
