// Families of cache types, and the element sizes of the types of llama.cpp.
#pragma once

#include "llama_kivi.h"

namespace lk::kv {

// KIVI types keep the youngest rows in a residual ring and quantize in groups. The others are ggml's, which store each
// row by itself.
constexpr bool is_kivi(lk_cache_type type) {
    switch (type) {
    case LK_CACHE_KIVI4:
    case LK_CACHE_KIVI3:
    case LK_CACHE_KIVI2:
    case LK_CACHE_KIVI4_PAPER:
    case LK_CACHE_KIVI2_PAPER:
        return true;
    default:
        return false;
    }
}

constexpr bool is_paper(lk_cache_type type) {
    return type == LK_CACHE_KIVI2_PAPER || type == LK_CACHE_KIVI4_PAPER;
}

// Types with refined key channels and centred, rotated values.
constexpr bool is_refined(lk_cache_type type) {
    return type == LK_CACHE_KIVI2 || type == LK_CACHE_KIVI3;
}

// Bits of a stock type's element, without scales, and bytes of a block of 32.
struct StockFormat {
    int bits;
    int block_bytes;  // 0: not in blocks
};

constexpr StockFormat stock_format(lk_cache_type type) {
    constexpr int kHalf = 2;
    constexpr int kFourBits = 16;  // bytes of 32 codes
    constexpr int kFifthBits = 4;
    switch (type) {
    case LK_CACHE_F32:
        return {32, 0};
    case LK_CACHE_Q8_0:
        return {8, kHalf + 32};
    case LK_CACHE_Q5_1:
        return {5, 2 * kHalf + kFifthBits + kFourBits};
    case LK_CACHE_Q5_0:
        return {5, kHalf + kFifthBits + kFourBits};
    case LK_CACHE_Q4_1:
        return {4, 2 * kHalf + kFourBits};
    case LK_CACHE_Q4_0:
    case LK_CACHE_IQ4_NL:
        return {4, kHalf + kFourBits};
    default:
        return {16, 0};
    }
}

}  // namespace lk::kv
