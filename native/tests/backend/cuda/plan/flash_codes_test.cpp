// The bytes that flash attention copies for a tile: inside the page, inside its buffer, in pieces of 16 bytes, and
// every code and scale of the tile among them. Needs no GPU.
#include "backend/cuda/plan/flash_codes.h"

#include <gtest/gtest.h>

#include <string>

namespace lk::cuda {
namespace {

using kv::PageFormat;
using kv::Side;

constexpr int kPiece = 16;

int scale_bytes(const PageFormat& f) {
    return f.scale_kind == kv::ScaleKind::half_pair ? 4 : 1;
}

// The bytes of a token's codes and scales are in the ranges.
bool has_token(const PageFormat& f, const FlashCodes& range, int token) {
    const auto has_code = [&](kv::CodePlace place) {
        const int byte = static_cast<int>(place.byte);
        return byte >= range.codes && byte < range.codes + range.n_codes;
    };
    const auto has_scale = [&](int index) {
        const int byte = index * scale_bytes(f);
        return byte >= range.scales && byte + scale_bytes(f) <= range.scales + range.n_scales;
    };
    if (f.side == Side::keys) {
        bool all = true;
        for (int row = 0; row < f.rows; ++row) {
            all = all && has_code(kv::key_code_place(f, token, row));
        }
        for (int c = 0; c < f.head_size; ++c) {
            all = all && has_scale(token / f.group * f.head_size + c);
        }
        return all;
    }
    bool all = true;
    for (int c = 0; c < f.head_size; ++c) {
        all = all && has_code(kv::value_code_place(f, token, c));
        all = all && (f.bits != 3 || has_code(kv::value_high_place(f, token, c)));
    }
    for (int g = 0; g < f.scale_groups; ++g) {
        all = all && has_scale(token * f.scale_groups + g);
    }
    return all;
}

template <int kWidth>
void check_format(const PageFormat& f, const std::string& name) {
    if (!copies_codes(f, kWidth)) {
        return;
    }
    ASSERT_TRUE(kv::is_kivi(f.type)) << name;
    const int capacity = f.side == Side::keys ? FlashCodeBytes<kWidth>::kKeys : FlashCodeBytes<kWidth>::kValues;
    const int planes = FlashCodes::has_zeros(f) ? 2 : 1;
    EXPECT_EQ(f.scales_offset % kPiece, 0u) << name;
    EXPECT_EQ(f.zeros_offset % kPiece, 0u) << name;
    for (int token = 0; token < kv::kPageTokens; ++token) {
        for (int n = 1; n <= kFlashTile - token % kFlashTile; n += 21) {
            const FlashCodes range =
                f.side == Side::keys ? FlashCodes::of_keys(f, token, n) : FlashCodes::of_values(f, token, n);
            ASSERT_EQ((range.codes | range.n_codes | range.scales | range.n_scales) % kPiece, 0) << name;
            ASSERT_LE(range.n_codes, FlashCodeBytes<kWidth>::kCodes) << name;
            ASSERT_LE(FlashCodeBytes<kWidth>::kCodes + planes * range.n_scales, capacity) << name;
            ASSERT_LE(static_cast<size_t>(range.codes + range.n_codes), f.scales_offset) << name;
            ASSERT_LE(f.scales_offset + range.scales + range.n_scales, planes == 2 ? f.zeros_offset : f.page_bytes)
                << name;
            ASSERT_LE((planes == 2 ? f.zeros_offset : f.scales_offset) + range.scales + range.n_scales, f.page_bytes)
                << name;
            ASSERT_TRUE(has_token(f, range, token) && has_token(f, range, token + n - 1))
                << name << ", tokens " << token << " to " << token + n - 1;
        }
    }
}

template <int kWidth>
void check_width() {
    for (int t = 0; t < LK_CACHE_TYPE_COUNT; ++t) {
        const auto type = static_cast<lk_cache_type>(t);
        for (const int group : {16, 32, 64, 128}) {
            for (const int refined : {0, 3, 8}) {
                for (const Side side : {Side::keys, Side::values}) {
                    kv::Recipe recipe = kv::own_recipe(type);
                    recipe.group = group;
                    recipe.refined_eighths = refined;
                    const PageFormat f = kv::make_page_format(type, side, kWidth, recipe);
                    check_format<kWidth>(f, std::string(lk_cache_type_name(type)) +
                                                (side == Side::keys ? " keys" : " values") + ", D " +
                                                std::to_string(kWidth) + ", G " + std::to_string(group) + ", " +
                                                std::to_string(refined) + "/8 refined");
                }
            }
        }
    }
}

TEST(FlashCodes, AreTheTilesAndFit) {
    check_width<64>();
    check_width<96>();
    check_width<128>();
    check_width<256>();
}

// Pages of stock types are read otherwise.
TEST(FlashCodes, AreOfKiviPagesOnly) {
    for (int t = 0; t < LK_CACHE_TYPE_COUNT; ++t) {
        const auto type = static_cast<lk_cache_type>(t);
        for (const Side side : {Side::keys, Side::values}) {
            EXPECT_EQ(copies_codes(kv::make_page_format(type, side, 128, 32), 128), kv::is_kivi(type))
                << lk_cache_type_name(type);
        }
    }
    for (const Side side : {Side::keys, Side::values}) {
        EXPECT_TRUE(copies_codes(kv::make_page_format(LK_CACHE_KIVI2, side, 128, 32), 128));
        EXPECT_FALSE(copies_codes(kv::make_page_format(LK_CACHE_KIVI2, side, 80, 32), 96));
    }
}

}  // namespace
}  // namespace lk::cuda
