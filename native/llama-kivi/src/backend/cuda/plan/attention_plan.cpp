#include "backend/cuda/plan/attention_plan.h"

#include <algorithm>
#include <string>

#include "backend/cuda/plan/splits.h"
#include "backend/invariant_splits.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

std::string type_text(lk_cache_type type) {
    const char* const name = lk_cache_type_name(type);
    return name != nullptr ? name : format("type %d", static_cast<int>(type));
}

[[noreturn]] void fail_request(const kv::PageFormat& k, const kv::PageFormat& v, int query_rows) {
    LK_FAIL(
        LK_UNSUPPORTED,
        "attention: no CUDA kernel reads keys in %s and values in %s with head sizes %d and %d for %d query rows of "
        "a KV head; use another cache type, or leave all layers on the CPU",
        type_text(k.type).c_str(), type_text(v.type).c_str(), k.head_size, v.head_size, query_rows);
}

void check_request(const kv::PageFormat& k, const kv::PageFormat& v, int query_rows) {
    const auto is_type = [](lk_cache_type type) { return type >= 0 && type < LK_CACHE_TYPE_COUNT; };
    const bool known = is_type(k.type) && is_type(v.type) && k.head_size == v.head_size && k.head_size > 0 &&
                       k.head_size <= kv::kMaxHeadSize && k.head_size % 8 == 0 && query_rows > 0;
    if (!known) {
        fail_request(k, v, query_rows);
    }
}

// The decoding kernels are compiled for these head sizes.
bool is_decoding_width(int head_size) {
    return head_size == 64 || head_size == 128;
}

// The page kernels are compiled for the refined channels of each type's own recipe.
bool has_compiled_recipe(const kv::PageFormat& k) {
    return k.recipe.refined_eighths == kv::own_recipe(k.type).refined_eighths;
}

// Stock types that a decoding kernel is compiled for. Flash reads the others.
bool has_decoding_kernel(lk_cache_type type) {
    return type == LK_CACHE_Q8_0 || type == LK_CACHE_Q4_0;
}

AttentionVariant few_rows_variant(AttentionKernel kernel, const kv::PageFormat& f, int query_rows) {
    return {kernel, f.type, f.head_size, query_rows == 1 ? 1 : kFewRows, 32 * kAttentionWarps};
}

AttentionVariant flash_variant(int head_size, int query_rows) {
    const int width = head_size <= 64 ? 64 : head_size <= 96 ? 96 : head_size <= 128 ? 128 : 256;
    return {AttentionKernel::flash, LK_CACHE_F16, width, flash_rows(width, query_rows <= kFlashSplitRows), kFlashTile};
}

// A block of flash_wgmma has twice the query rows of one of flash, so it needs more than those to be faster. In a
// batch-invariant pass the size of the batch selects no kernel.
bool is_for_wgmma(const AttentionRequest& r) {
    constexpr int kWidth = 128;
    return r.wgmma && !r.invariant && r.k.head_size == kWidth && r.query_rows() > flash_rows(kWidth, false);
}

int splits_of(const AttentionRequest& r, const AttentionVariant& variant, int n_tokens, int n_slots) {
    const auto pieces = [&](int n) { return (n + variant.n_tokens - 1) / variant.n_tokens; };
    if (r.invariant && variant.kernel != AttentionKernel::flash) {
        // A ring and the other tokens have tiles of their own in `whole` and `ring_group`.
        const bool apart = variant.kernel == AttentionKernel::whole || variant.kernel == AttentionKernel::ring_group;
        const int rounding = apart ? kRowTile : 0;
        return std::max(1, InvariantSplits::count(pieces(n_tokens + rounding) * kAttentionWarps));
    }
    constexpr double kOverhead = 1.5;  // per thread block, in steps
    return choose_splits(attention_blocks(r, variant) * r.n_segments, pieces(n_tokens), n_slots, kOverhead);
}

}  // namespace

AttentionVariant select_pages(const kv::PageFormat& k, const kv::PageFormat& v, int query_rows) {
    check_request(k, v, query_rows);
    if (k.type != v.type || !is_decoding_width(k.head_size)) {
        return {};
    }
    if (k.blocks()) {
        return has_decoding_kernel(k.type) ? few_rows_variant(AttentionKernel::block_pages, k, query_rows)
                                           : AttentionVariant{};
    }
    if (!kv::is_kivi(k.type) || k.group < 32 || !has_compiled_recipe(k)) {
        return {};
    }
    constexpr int kTokens = kv::kPageTokens * kAttentionWarps;  // each warp reads one page
    if (query_rows == 1) {
        return {AttentionKernel::pages_row, k.type, k.head_size, 1, kTokens};
    }
    const int n_rows = query_rows <= kPairedRows ? kPairedRows : kPagesRows;
    return {AttentionKernel::pages, k.type, k.head_size, n_rows, kTokens};
}

AttentionChoice select_attention(const AttentionRequest& r) {
    const int query_rows = r.query_rows();
    check_request(r.k, r.v, query_rows);
    AttentionChoice choice;
    const bool in_halves = !r.k.floats() && !r.v.floats();
    const bool k_blocks = r.k.recipe.ring == kv::RowType::q8_0;
    const bool v_blocks = r.v.recipe.ring == kv::RowType::q8_0;
    const bool group = k_blocks && v_blocks && r.max_rows == 1 && query_rows > 1;
    const int most_rows = group ? kGroupedRows : kFewRows;
    if (r.exact && in_halves && (query_rows <= most_rows || r.invariant) && is_decoding_width(r.k.head_size)) {
        const AttentionKernel kernel = !k_blocks && !v_blocks                    ? AttentionKernel::rows
                                       : k_blocks && v_blocks && query_rows == 1 ? AttentionKernel::whole
                                       : group                                   ? AttentionKernel::ring_group
                                                                                 : AttentionKernel::ring_rows;
        choice.rest = few_rows_variant(kernel, r.k, query_rows);
        choice.rest.type = LK_CACHE_F16;
    } else if (is_for_wgmma(r)) {
        choice.rest = {AttentionKernel::flash_wgmma, LK_CACHE_F16, r.k.head_size, kWgmmaRows, kFlashTile};
    } else {
        choice.rest = flash_variant(r.k.head_size, query_rows);
    }
    if (r.max_page_runs > 0) {
        choice.pages = select_pages(r.k, r.v, query_rows);
        if (choice.pages.kernel == AttentionKernel::none) {
            fail_request(r.k, r.v, query_rows);
        }
    }
    return choice;
}

int attention_blocks(const AttentionRequest& r, const AttentionVariant& variant) {
    return r.n_head_kv * ((r.query_rows() + variant.n_rows - 1) / variant.n_rows);
}

AttentionSplits split_attention(const AttentionRequest& r, const AttentionChoice& choice, int rest_slots,
                                int page_slots) {
    AttentionSplits splits{splits_of(r, choice.rest, r.max_tokens, rest_slots), 0};
    if (choice.pages.kernel != AttentionKernel::none) {
        // Few blocks of the other tokens run beside those of pages instead of after them.
        const int rest_blocks = attention_blocks(r, choice.rest) * r.n_segments * splits.rest;
        const int left = 4 * rest_blocks <= page_slots ? page_slots - rest_blocks : page_slots;
        splits.pages = splits_of(r, choice.pages, r.max_page_runs * kv::kPageTokens, left);
    }
    return splits;
}

AttentionVariant select_whole(const AttentionRequest& r) {
    if (!r.exact || !is_short(r.max_page_runs) || r.k.recipe.ring != r.v.recipe.ring) {
        return {};
    }
    AttentionVariant whole = select_pages(r.k, r.v, r.query_rows());
    if (whole.kernel != AttentionKernel::pages_row) {
        return {};
    }
    whole.kernel = AttentionKernel::whole;
    return whole;
}

void fail_variant(const AttentionVariant& variant) {
    static constexpr const char* kNames[] = {"none",       "flash", "flash_wgmma", "rows",  "ring_rows",
                                             "ring_group", "whole", "block_pages", "pages", "pages_row"};
    LK_FAIL(LK_INTERNAL_ERROR, "attention: the CUDA kernel '%s' is not compiled for %s, heads of %d, %d query rows",
            kNames[static_cast<int>(variant.kernel)], type_text(variant.type).c_str(), variant.width, variant.n_rows);
}

}  // namespace lk::cuda
