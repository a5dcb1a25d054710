// The KV quantizers against their formulas, reimplemented in double, and the page format's sizes.
#include "kv/codec/quantizer.h"

#include <cstring>
#include <limits>

#include "kv/codec/scalar_codec.h"
#include "quantizer_reference.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::groups_of;
using test::PaperGroup;

constexpr int kHeadSizes[] = {64, 80, 96, 128, 256};
constexpr int kGroups[] = {16, 32, 64, 128};
constexpr lk_cache_type kQuantized[] = {LK_CACHE_KIVI4, LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER};
constexpr lk_cache_type kPaper[] = {LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER};

class Quantizer : public testing::Test {
protected:
    // Draws rows [n, D] of half values; channels differ in range and centre.
    std::vector<float> draw_rows(int n, int d, float offset = 2) {
        std::vector<float> spread(d);
        std::vector<float> centre(d);
        for (int c = 0; c < d; ++c) {
            spread[c] = std::exp(normal_(random_));
            centre[c] = offset * normal_(random_);
        }
        std::vector<float> rows(static_cast<size_t>(n) * d);
        for (size_t i = 0; i < rows.size(); ++i) {
            rows[i] = half_to_float(float_to_half(centre[i % d] + spread[i % d] * normal_(random_)));
        }
        return rows;
    }

    std::mt19937 random_{7};
    std::normal_distribution<float> normal_;
};

int get_key(const PageFormat& f, const std::vector<uint8_t>& page, int token, int row) {
    return get_code(page.data(), key_code_place(f, token, row), f.bits);
}

int get_value(const PageFormat& f, const std::vector<uint8_t>& page, int token, int channel) {
    return get_code(page.data(), value_code_place(f, token, channel), f.bits);
}

half_t get_half(const std::vector<uint8_t>& page, size_t at) {
    half_t h;
    std::memcpy(&h, page.data() + at, sizeof h);
    return h;
}

// Around every half that a code can meet, where a rounding may go wrong.
TEST(Rounding, IsThatOfTheLibrary) {
    for (int k = -129; k <= 128; ++k) {
        const int32_t half = bits_as<int32_t>(static_cast<float>(k) + 0.5f);
        for (int i = -500; i <= 500; ++i) {
            const float x = bits_as<float>(half + i);
            // Exact in double. Not roundf: MinGW's rounds the float below a half to 1.
            ASSERT_EQ(rounded_away(x), std::copysign(std::floor(std::fabs(static_cast<double>(x)) + 0.5), x)) << x;
            ASSERT_EQ(rounded_even(x), std::nearbyintf(x)) << x;
        }
    }
    for (const float x : {0.0f, -0.0f, 1e-40f, -1e-40f}) {
        EXPECT_EQ(rounded_away(x), 0) << x;
        EXPECT_EQ(rounded_even(x), 0) << x;
    }
}

TEST_F(Quantizer, PaperGroupsFollowTheFormula) {
    for (const lk_cache_type type : kPaper) {
        for (const Side side : {Side::keys, Side::values}) {
            for (const int d : {64, 80}) {  // 80: the last value group is short for every G except 16
                for (const int g : kGroups) {
                    const PageFormat f = make_page_format(type, side, d, g);
                    const std::vector<float> rows = draw_rows(kPageTokens, d);
                    std::vector<uint8_t> page(f.page_bytes);
                    const int step = side == Side::keys ? g : 1;  // tokens per flush
                    for (int t = 0; t < kPageTokens; t += step) {
                        quantize_rows(f, {}, rows.data() + t * d, step, t, 0, page.data());
                    }
                    std::vector<float> out(kPageTokens * d);
                    for (int t = 0; t < kPageTokens; ++t) {
                        dequantize_row(f, {}, page.data(), t, out.data() + t * d);
                    }
                    size_t at = f.scales_offset;
                    for (const auto& group : groups_of(side, d, g)) {
                        std::vector<double> x;
                        for (const auto& [t, c] : group) {
                            x.push_back(rows[t * d + c]);
                        }
                        const PaperGroup expected(x, f.bits);
                        ASSERT_EQ(get_half(page, at), expected.scale);
                        ASSERT_EQ(get_half(page, at + 2), expected.min);
                        at += 4;
                        for (size_t i = 0; i < group.size(); ++i) {
                            const auto [t, c] = group[i];
                            ASSERT_EQ(side == Side::keys ? get_key(f, page, t, c) : get_value(f, page, t, c),
                                      expected.codes[i]);
                            ASSERT_FLOAT_EQ(out[t * d + c], static_cast<float>(expected.values[i]));
                        }
                    }
                    ASSERT_EQ(at, f.page_bytes);
                }
            }
        }
    }
}

TEST_F(Quantizer, ConstantPaperGroupsAreExactWithCodeZero) {
    for (const lk_cache_type type : kPaper) {
        for (const Side side : {Side::keys, Side::values}) {
            const PageFormat f = make_page_format(type, side, 80, 32);
            for (const float x : {0.0f, -3.25f, 65504.0f, 0x1p-24f}) {
                std::vector<uint8_t> page(f.page_bytes, 0xff);
                quantize_rows(f, {}, std::vector<float>(32 * 80, x).data(), 32, 32, 0, page.data());
                std::vector<float> out(80);
                for (int t = 32; t < 64; ++t) {
                    dequantize_row(f, {}, page.data(), t, out.data());
                    for (int c = 0; c < 80; ++c) {
                        ASSERT_EQ(out[c], x);
                        ASSERT_EQ(side == Side::keys ? get_key(f, page, t, c) : get_value(f, page, t, c), 0);
                    }
                }
            }
        }
    }
}

// Greatest error of a byte key in steps: half a step, or what is cut. Rounding the scale to the nearest byte cuts up to
// 1/32 of a range. Rounding the zero point shifts the range by up to a quarter step, of which the scale covers an
// eighth of a step.
float most_error(int levels) {
    return std::max(0.5001f, 0.125f + (static_cast<float>(levels - 1) - 0.125f) / 32);
}

TEST_F(Quantizer, ByteKeysErrByHalfAStepOrTheCut) {
    for (const lk_cache_type type : {LK_CACHE_KIVI4, LK_CACHE_KIVI2}) {
        for (const int d : kHeadSizes) {
            for (const int g : kGroups) {
                for (const float offset : {2.0f, 300.0f}) {  // far from zero, the scale grows to fit the zero point
                    const PageFormat f = make_page_format(type, Side::keys, d, g);
                    const std::vector<float> rows = draw_rows(g, d, offset);
                    const HeadTable table = choose_head_table(f, rows.data(), g, 0, 0);
                    std::vector<uint8_t> page(f.page_bytes);
                    quantize_rows(f, table, rows.data(), g, 0, 0, page.data());
                    std::vector<float> out(rows.size());
                    for (int t = 0; t < g; ++t) {
                        dequantize_row(f, table, page.data(), t, out.data() + t * d);
                    }
                    for (int i = 0; i < g * d; ++i) {
                        const int c = i % d;
                        const float step = byte_scale_decode(page[f.scales_offset + c], table.exponent);
                        const bool refined = std::binary_search(table.refined.begin(), table.refined.end(), c);
                        ASSERT_LE(std::fabs(rows[i] - out[i]), most_error(refined ? 16 : 1 << f.bits) * step)
                            << i / d << " " << c;
                        ASSERT_GE(static_cast<int8_t>(page[f.zeros_offset + c]), -127);
                        ASSERT_LE(static_cast<int8_t>(page[f.zeros_offset + c]), 126);
                    }
                }
            }
        }
    }
}

TEST_F(Quantizer, RefinedChannelsAreTheWidest) {
    for (const int d : kHeadSizes) {
        const PageFormat f = make_page_format(LK_CACHE_KIVI2, Side::keys, d, 32);
        const int count = d * 3 / 8 / 4 * 4;
        std::vector<float> rows = draw_rows(160, d);
        std::fill_n(rows.begin(), 4 * d, 1000.0f);  // sinks must be ignored
        rows[1] = -1000.0f;
        const HeadTable table = choose_head_table(f, rows.data(), 160, 0, 4);
        std::vector<std::pair<double, int>> width;  // negated width, index: equal widths sort by index
        for (int c = 0; c < d; ++c) {
            double sum = 0;
            for (int t = 0; t < 160; t += 32) {
                float mn = 1e30f;
                float mx = -1e30f;
                for (int i = std::max(t, 4); i < t + 32; ++i) {
                    mn = std::min(mn, rows[i * d + c]);
                    mx = std::max(mx, rows[i * d + c]);
                }
                sum += static_cast<double>(mx) - mn;
            }
            width.emplace_back(-sum, c);
        }
        std::sort(width.begin(), width.end());
        std::vector<uint16_t> expected;
        for (int i = 0; i < count; ++i) {
            expected.push_back(static_cast<uint16_t>(width[i].second));
        }
        std::sort(expected.begin(), expected.end());
        EXPECT_EQ(table.refined, expected) << d;

        std::vector<float> equal(160 * d);
        for (size_t i = 0; i < equal.size(); ++i) {
            equal[i] = static_cast<float>(i / d % 7);
        }
        const HeadTable tied = choose_head_table(f, equal.data(), 160, 0, 4);
        ASSERT_EQ(static_cast<int>(tied.refined.size()), count);
        EXPECT_EQ(tied.refined.back(), count - 1) << "ties go to the lower index";
    }
}

TEST_F(Quantizer, RefinedChannelsHaveSixteenLevels) {
    const PageFormat f = make_page_format(LK_CACHE_KIVI2, Side::keys, 128, 32);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> rows(160 * 128);
    for (float& x : rows) {
        x = uniform(random_);  // equal ranges make refined and plain channels comparable
    }
    const HeadTable table = choose_head_table(f, rows.data(), 160, 0, 4);
    std::vector<uint8_t> page(f.page_bytes);
    for (int t = 0; t < 128; t += 32) {
        quantize_rows(f, table, rows.data() + t * 128, 32, t, 0, page.data());
    }
    std::vector<double> error(2);
    std::vector<float> out(128);
    int top = 0;
    for (int t = 0; t < 128; ++t) {
        dequantize_row(f, table, page.data(), t, out.data());
        for (int c = 0; c < 128; ++c) {
            const auto at = std::lower_bound(table.refined.begin(), table.refined.end(), c);
            const bool refined = at != table.refined.end() && *at == c;
            error[refined] += std::fabs(rows[t * 128 + c] - out[c]) / (refined ? 48.0 : 80.0) / 128;
            if (refined) {
                const int low_row = 128 + static_cast<int>(at - table.refined.begin());
                top = std::max(top, 4 * get_key(f, page, t, c) + get_key(f, page, t, low_row));
            }
        }
    }
    EXPECT_EQ(top, 15);
    // 15 - 1/8 steps instead of 3 - 1/8.
    EXPECT_GT(error[0] / error[1], 4.5);
    EXPECT_LT(error[0] / error[1], 6.0);
}

TEST_F(Quantizer, SinksStayOutOfTheRange) {
    for (const lk_cache_type type : kQuantized) {
        const PageFormat f = make_page_format(type, Side::keys, 64, 32);
        std::vector<float> rows = draw_rows(160, 64);
        const HeadTable table = choose_head_table(f, rows.data(), 160, 0, 4);
        std::vector<uint8_t> expected(f.page_bytes);
        quantize_rows(f, table, rows.data(), 32, 0, 4, expected.data());
        for (int i = 0; i < 4 * 64; ++i) {
            rows[i] *= i % 2 == 0 ? 1000.0f : -1000.0f;
        }
        const HeadTable again = choose_head_table(f, rows.data(), 160, 0, 4);
        EXPECT_EQ(again.exponent, table.exponent);
        EXPECT_EQ(again.refined, table.refined);
        std::vector<uint8_t> page(f.page_bytes);
        quantize_rows(f, table, rows.data(), 32, 0, 4, page.data());
        EXPECT_EQ(page, expected) << lk_cache_type_name(type);
    }
}

TEST_F(Quantizer, Hadamard) {
    for (const int d : kHeadSizes) {
        const int block = d == 80 ? 16 : d == 96 ? 32 : d;  // D's largest power-of-two divisor
        std::vector<float> identity(d);
        for (int i = 0; i < d; ++i) {
            std::vector<float> x(d);
            x[i] = 1;
            hadamard(x.data(), d);
            for (int j = 0; j < d; ++j) {
                const double entry = j / block == i / block ? 1 / std::sqrt(block) : 0;
                ASSERT_NEAR(std::fabs(x[j]), entry, 1e-6) << d << ": " << i << " " << j;
            }
            hadamard(x.data(), d);
            for (int j = 0; j < d; ++j) {
                ASSERT_NEAR(x[j], i == j ? 1 : 0, 1e-6) << "its own inverse, so with equal entries orthonormal";
            }
        }
    }
}

TEST_F(Quantizer, TwoBitValuesAreHalfwayToUnbiased) {
    for (const int d : kHeadSizes) {
        const PageFormat f = make_page_format(LK_CACHE_KIVI2, Side::values, d, 32);
        const std::vector<float> rows = draw_rows(160, d);
        const HeadTable table = choose_head_table(f, rows.data(), 160, 0, 4);
        std::vector<uint8_t> page(f.page_bytes);
        quantize_rows(f, table, rows.data(), 128, 0, 0, page.data());
        std::vector<float> out(d);
        for (int t = 0; t < 128; ++t) {
            std::vector<float> w(d);
            for (int c = 0; c < d; ++c) {
                w[c] = rows[t * d + c] - half_to_float(table.mu[c]);
            }
            dequantize_row(f, table, page.data(), t, out.data());
            double square = 0;
            double along = 0;  // rotation preserves inner products, so <x^ - mu, v - mu> = <s l, w>
            for (int c = 0; c < d; ++c) {
                square += static_cast<double>(w[c]) * w[c];
                along += (out[c] - half_to_float(table.mu[c])) * static_cast<double>(w[c]);
            }
            hadamard(w.data(), d);
            double wl = 0;
            double ll = 0;
            for (int c = 0; c < d; ++c) {
                const double level = get_value(f, page, t, c) - 1.5;
                wl += level * w[c];
                ll += level * level;
            }
            // The unbiased scale would give 1, the least-squares scale wl * wl / (square * ll).
            ASSERT_NEAR(along / square, (1 + wl * wl / (square * ll)) / 2, 1.0 / 32)
                << "half a step of four mantissa bits";
            const double step = 0.9957 * std::sqrt(square / d);
            for (int c = 0; c < d; ++c) {
                const double at = w[c] / step;
                if (std::fabs(at - std::nearbyint(at)) > 1e-4) {
                    ASSERT_EQ(get_value(f, page, t, c), std::clamp(std::floor(at), -2.0, 1.0) + 2);
                }
            }
        }
    }
}

TEST_F(Quantizer, CentreIsKeptWhereItCutsTheMeanSquareBelowFourFifths) {
    const PageFormat f = make_page_format(LK_CACHE_KIVI2, Side::values, 64, 32);
    int kept = 0;
    for (int i = 0; i < 20; ++i) {  // an offset of 0.5 is at the threshold: 1 / (1 + 0.5 * 0.5)
        std::vector<float> rows(160 * 64);
        for (float& x : rows) {
            x = half_to_float(float_to_half(normal_(random_) + 0.05f * static_cast<float>(i)));
        }
        std::fill_n(rows.begin(), 4 * 64, 500.0f);  // sinks must be ignored
        const auto median = [](std::vector<double> x) {
            std::sort(x.begin(), x.end());
            return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
        };
        std::vector<half_t> mu;
        for (int c = 0; c < 64; ++c) {
            std::vector<double> column;
            for (int t = 4; t < 160; ++t) {
                column.push_back(rows[t * 64 + c]);
            }
            mu.push_back(float_to_half(static_cast<float>(median(column))));
        }
        std::vector<double> before;
        std::vector<double> after;
        for (int t = 4; t < 160; ++t) {
            before.push_back(0);
            after.push_back(0);
            for (int c = 0; c < 64; ++c) {
                before.back() += std::pow(rows[t * 64 + c], 2);
                after.back() += std::pow(rows[t * 64 + c] - half_to_float(mu[c]), 2);
            }
        }
        const bool keep = median(after) < 0.8 * median(before);
        kept += keep;
        EXPECT_EQ(choose_head_table(f, rows.data(), 160, 0, 4).mu, keep ? mu : std::vector<half_t>(64)) << i;
    }
    EXPECT_GT(kept, 5);
    EXPECT_LT(kept, 15);
}

TEST(PageFormats, EveryCodeHasBitsOfItsOwn) {
    for (const lk_cache_type type : {LK_CACHE_KIVI4, LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER}) {
        for (const Side side : {Side::keys, Side::values}) {
            for (const int d : kHeadSizes) {
                for (const int g : kGroups) {
                    const PageFormat f = make_page_format(type, side, d, g);
                    std::vector<uint8_t> page(f.page_bytes);
                    std::vector<uint8_t> owned(f.scales_offset);
                    const auto each = [&](auto visit) {
                        for (int t = 0; t < kPageTokens; ++t) {
                            for (int r = 0; r < f.rows; ++r) {
                                visit(side == Side::keys ? key_code_place(f, t, r) : value_code_place(f, t, r),
                                      (t * 5 + r * 3 + r / 7) % (1 << f.bits));
                            }
                        }
                    };
                    each([&](CodePlace at, int code) {
                        const int mask = ((1 << f.bits) - 1) << at.shift;
                        ASSERT_LT(at.byte, f.scales_offset);
                        ASSERT_EQ(owned[at.byte] & mask, 0);
                        owned[at.byte] = static_cast<uint8_t>(owned[at.byte] | mask);
                        set_code(page.data(), at, f.bits, code);
                    });
                    EXPECT_EQ(std::count(owned.begin(), owned.end(), 0xff), static_cast<long>(f.scales_offset));
                    each([&](CodePlace at, int code) { ASSERT_EQ(get_code(page.data(), at, f.bits), code); });
                }
            }
        }
    }
}

TEST(PageFormats, BitsPerElement) {
    struct Row {
        lk_cache_type type;
        int head_size, group;
        double k, v;
    };
    const Row rows[] = {{LK_CACHE_F16, 64, 32, 16, 16},
                        {LK_CACHE_KIVI2, 64, 64, 3, 2.125},
                        {LK_CACHE_KIVI2, 128, 64, 3, 2.0625},
                        {LK_CACHE_KIVI2, 64, 16, 3.75, 2.125},
                        {LK_CACHE_KIVI2, 64, 32, 3.25, 2.125},
                        {LK_CACHE_KIVI2, 80, 64, 2.95, 2.1},
                        {LK_CACHE_KIVI4, 128, 32, 4.5, 4.5},
                        {LK_CACHE_KIVI4, 128, 64, 4.25, 4.25},
                        {LK_CACHE_KIVI4_PAPER, 128, 32, 5, 5},
                        {LK_CACHE_KIVI2_PAPER, 64, 32, 3, 3},
                        {LK_CACHE_KIVI2_PAPER, 128, 64, 2.5, 2.5},
                        {LK_CACHE_KIVI2_PAPER, 80, 32, 3, 3.2}};  // a short group has a full-size scale
    for (const Row& row : rows) {
        const PageFormat k = make_page_format(row.type, Side::keys, row.head_size, row.group);
        const PageFormat v = make_page_format(row.type, Side::values, row.head_size, row.group);
        EXPECT_DOUBLE_EQ(k.bits_per_element(), row.k) << lk_cache_type_name(row.type) << " " << row.group;
        EXPECT_DOUBLE_EQ(v.bits_per_element(), row.v) << lk_cache_type_name(row.type) << " " << row.group;
    }
}

}  // namespace
}  // namespace lk::kv
