// The recipes of codes that page kernels are compiled for.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

// kKeyBits: bits of a code of keys; of values too, unless kOfValues differs.
template <int kKeyBits, bool kIsPaper, int kOfValues = kKeyBits>
struct PageCodes {
    static constexpr int kBits = kKeyBits;
    static constexpr bool kPaper = kIsPaper;
    static constexpr int kValueBits = kOfValues;
};

// Returns select(PageCodes) for the recipe of a variant. Throws like fail_variant for a type whose pages have none.
template <class Select>
AttentionFunction select_page_codes(const AttentionVariant& variant, const Select& select) {
    switch (variant.type) {
    case LK_CACHE_KIVI2:
        return select(PageCodes<2, false>{});
    case LK_CACHE_KIVI4:
        return select(PageCodes<4, false>{});
    case LK_CACHE_KIVI3:
        return select(PageCodes<2, false, 3>{});
    case LK_CACHE_KIVI2_PAPER:
        return select(PageCodes<2, true>{});
    case LK_CACHE_KIVI4_PAPER:
        return select(PageCodes<4, true>{});
    default:
        fail_variant(variant);
    }
}

}  // namespace

}  // namespace lk::cuda
