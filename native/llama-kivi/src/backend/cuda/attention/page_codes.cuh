// The recipes of codes that page kernels are compiled for.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

template <int kCodeBits, bool kIsPaper, int kRecipe>
struct PageCodes {
    static constexpr int kBits = kCodeBits;
    static constexpr bool kPaper = kIsPaper;
    static constexpr int kEdition = kRecipe;
};

// Returns select(PageCodes) for the recipe of a variant. Throws like fail_variant for a type whose pages have none.
template <class Select>
AttentionFunction select_page_codes(const AttentionVariant& variant, const Select& select) {
    const bool second = variant.edition == kv::kSecondEdition;
    switch (variant.type) {
    case LK_CACHE_KIVI2:
        return second ? select(PageCodes<2, false, 2>{}) : select(PageCodes<2, false, 1>{});
    case LK_CACHE_KIVI4:
        return second ? select(PageCodes<4, false, 2>{}) : select(PageCodes<4, false, 1>{});
    case LK_CACHE_KIVI3:
        return select(PageCodes<2, false, kThreeBitValues>{});
    case LK_CACHE_KIVI2_PAPER:
        return select(PageCodes<2, true, 1>{});
    case LK_CACHE_KIVI4_PAPER:
        return select(PageCodes<4, true, 1>{});
    default:
        fail_variant(variant);
    }
}

}  // namespace

}  // namespace lk::cuda
