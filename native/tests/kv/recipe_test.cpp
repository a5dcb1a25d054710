// The recipes of kivi2 and kivi4 against a readable reference: scales are found by searching all bytes, and every
// number of a page is compared, for every head size, group and share of refined channels.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "kv/codec/scalar_codec.h"
#include "kv/config.h"
#include "kv/state/state_side.h"
#include "runtime/context_params.h"
#include "support/kv_helpers.h"
#include "support/recipe_shapes.h"

namespace lk::kv {
namespace {

using test::Shape;

constexpr int kHeadSizes[] = {64, 80, 96, 128, 256};
constexpr int kGroups[] = {16, 32, 64, 128};

// ---- the reference

float decoded(int byte, int k) {
    return std::ldexp(half_to_float(static_cast<half_t>(byte << 6)), k);
}

// Smallest byte scale that is at least x.
int byte_above(float x, int k) {
    int byte = 0;
    while (byte < 255 && decoded(byte, k) < x) {
        ++byte;
    }
    return byte;
}

// Nearest byte scale; of two equally near the even one.
int byte_nearest(float x, int k) {
    int best = 0;
    for (int byte = 1; byte < 256; ++byte) {
        const double now = std::fabs(static_cast<double>(decoded(byte, k)) - x);
        const double before = std::fabs(static_cast<double>(decoded(best, k)) - x);
        if (now < before || (now == before && byte % 2 == 0)) {
            best = byte;
        }
    }
    return best;
}

struct Group {
    int scale;
    int zero;
    std::vector<int> codes;

    Group(const std::vector<float>& x, int levels, int k) {
        const float low = *std::min_element(x.begin(), x.end());
        const float high = *std::max_element(x.begin(), x.end());
        const float range = (high - low) / (static_cast<float>(levels - 1) - 0.125f);
        const float reach = std::fabs(low) * 4 / 126;
        scale = std::max(byte_nearest(range, k), byte_above(reach, k));
        const float s = decoded(scale, k);
        zero = s > 0 ? static_cast<int>(std::clamp(std::floor(4 * low / s), -127.0f, 126.0f)) : 0;
        const float least = s * static_cast<float>(zero) * 0.25f;
        for (const float v : x) {
            const float code = s > 0 ? std::nearbyint((v - least) / s) : 0;
            codes.push_back(static_cast<int>(std::clamp(code, 0.0f, static_cast<float>(levels - 1))));
        }
    }
};

// Channels with twice the bits: those with the widest mean range over the groups of the first R + G tokens.
std::vector<int> widest(const std::vector<float>& rows, int n, int d, int group, int sinks, int count) {
    std::vector<std::pair<double, int>> width;
    for (int c = 0; c < d; ++c) {
        double sum = 0;
        for (int begin = 0; begin < n; begin += group) {
            float low = 1e30f;
            float high = -1e30f;
            for (int t = std::max(begin, sinks); t < std::min(begin + group, n); ++t) {
                low = std::min(low, rows[t * d + c]);
                high = std::max(high, rows[t * d + c]);
            }
            sum += high >= low ? static_cast<double>(high) - low : 0;
        }
        width.emplace_back(-sum, c);
    }
    std::sort(width.begin(), width.end());
    std::vector<int> channels;
    for (int i = 0; i < count; ++i) {
        channels.push_back(width[i].second);
    }
    std::sort(channels.begin(), channels.end());
    return channels;
}

lk_cache_params params_of(lk_cache_type type, int group, int refined) {
    return {type, type, static_cast<uint32_t>(group), 128, -1, refined, LK_ROWS_OWN, 0, 0};
}

std::vector<float> draw_rows(int n, int d, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> spread(d);
    std::vector<float> centre(d);
    for (int c = 0; c < d; ++c) {
        spread[c] = std::exp(normal(random));
        centre[c] = 2 * normal(random);
    }
    centre[d / 2] = 100;  // a scale that its zero point determines
    spread[d / 2] = 0.1f;
    std::vector<float> rows(static_cast<size_t>(n) * d);
    for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = half_to_float(float_to_half(centre[i % d] + spread[i % d] * normal(random)));
    }
    return rows;
}

int key_code(const PageFormat& f, const std::vector<uint8_t>& page, int token, int row) {
    return get_code(page.data(), key_code_place(f, token, row), f.bits);
}

void check_keys(const lk_cache_params& params, int d) {
    const Recipe recipe = make_recipe(params, params.type_k);
    const PageFormat f = make_page_format(params.type_k, Side::keys, d, recipe);
    const int g = recipe.group;
    const int n = 128 + g;
    const int sinks = 4;
    const std::vector<float> rows = draw_rows(n, d, d + g);
    const HeadTable table = choose_head_table(f, rows.data(), n, 0, sinks);
    const int count = params.type_k == LK_CACHE_KIVI2 ? d * recipe.refined_eighths / 8 / 4 * 4 : 0;
    const std::vector<int> refined = widest(rows, n, d, g, sinks, count);
    ASSERT_EQ(std::vector<int>(table.refined.begin(), table.refined.end()), refined);
    ASSERT_EQ(f.rows, d + count);

    std::vector<uint8_t> page(f.page_bytes);
    std::vector<float> out(d);
    for (int begin = 0; begin < kPageTokens; begin += g) {
        const int skipped = begin == 0 ? sinks : 0;
        quantize_rows(f, table, rows.data() + begin * d, g, begin, skipped, page.data());
        for (int c = 0; c < d; ++c) {
            const auto at = std::lower_bound(refined.begin(), refined.end(), c);
            const bool is_refined = at != refined.end() && *at == c;
            std::vector<float> x;
            for (int t = begin + skipped; t < begin + g; ++t) {
                x.push_back(rows[t * d + c]);
            }
            const Group expected(x, is_refined ? 16 : 1 << f.bits, table.exponent);
            const size_t place = static_cast<size_t>(begin / g) * d + c;
            ASSERT_EQ(page[f.scales_offset + place], expected.scale) << "channel " << c;
            ASSERT_EQ(static_cast<int8_t>(page[f.zeros_offset + place]), expected.zero) << "channel " << c;
            for (size_t i = 0; i < x.size(); ++i) {
                const int token = begin + skipped + static_cast<int>(i);
                const int high = key_code(f, page, token, c);
                const int code =
                    is_refined ? 4 * high + key_code(f, page, token, d + static_cast<int>(at - refined.begin())) : high;
                ASSERT_EQ(code, expected.codes[i]) << "channel " << c << ", token " << token;
            }
        }
    }
}

TEST(Recipes, PagesOfKeysFollowTheFormula) {
    for (const int d : kHeadSizes) {
        for (const int g : kGroups) {
            for (const int refined : {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8}) {
                SCOPED_TRACE(format("D %d, G %d, refined %d", d, g, refined));
                check_keys(params_of(LK_CACHE_KIVI2, g, refined), d);
            }
            SCOPED_TRACE(format("kivi4, D %d, G %d", d, g));
            check_keys(params_of(LK_CACHE_KIVI4, g, 0), d);
        }
    }
}

TEST(Recipes, TwoBitValuesHaveTheHalfwayScale) {
    for (const int d : kHeadSizes) {
        const Recipe recipe = own_recipe(LK_CACHE_KIVI2);
        const PageFormat f = make_page_format(LK_CACHE_KIVI2, Side::values, d, recipe);
        const int n = 128 + recipe.group;
        const std::vector<float> rows = draw_rows(n, d, d);
        const HeadTable table = choose_head_table(f, rows.data(), n, 0, 4);
        std::vector<uint8_t> page(f.page_bytes);
        quantize_rows(f, table, rows.data(), kPageTokens, 0, 0, page.data());
        for (int t = 0; t < kPageTokens; ++t) {
            std::vector<float> w(d);
            for (int c = 0; c < d; ++c) {
                w[c] = rows[t * d + c] - half_to_float(table.mu[c]);
            }
            hadamard(w.data(), d);
            double ww = 0;
            double wl = 0;
            double ll = 0;
            for (int c = 0; c < d; ++c) {
                const double level = get_code(page.data(), value_code_place(f, t, c), 2) - 1.5;
                ww += static_cast<double>(w[c]) * w[c];
                wl += level * w[c];
                ll += level * level;
            }
            const double scale = (ww / wl + wl / ll) / 2;
            ASSERT_EQ(page[f.scales_offset + t], byte_nearest(static_cast<float>(scale), table.exponent))
                << "D " << d << ", token " << t;
        }
    }
}

TEST(Recipes, BitsPerElementFollowTheFormula) {
    for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI4}) {
        for (const int d : kHeadSizes) {
            for (const int g : kGroups) {
                for (const int refined : {-1, 0, 1, 2, 3, 4, 8}) {
                    const Recipe recipe = make_recipe(params_of(type, g, refined), type);
                    const PageFormat k = make_page_format(type, Side::keys, d, recipe);
                    const double bits = type == LK_CACHE_KIVI2 ? 2 : 4;
                    const int count = d * recipe.refined_eighths / 8 / 4 * 4;
                    ASSERT_DOUBLE_EQ(k.bits_per_element(), bits * (d + count) / d + 16.0 / g);
                }
            }
        }
    }
    const auto both = [](int d) {
        const Recipe recipe = own_recipe(LK_CACHE_KIVI2);
        return (make_page_format(LK_CACHE_KIVI2, Side::keys, d, recipe).bits_per_element() +
                make_page_format(LK_CACHE_KIVI2, Side::values, d, recipe).bits_per_element()) /
               2;
    };
    EXPECT_DOUBLE_EQ(both(128), 2.53125);
    EXPECT_DOUBLE_EQ(both(64), 2.5625);
}

TEST(Recipes, ParametersGiveTheRecipe) {
    const auto recipe = [](lk_cache_type type, auto change) {
        lk_cache_params params = params_of(type, 0, 0);
        change(params);
        return make_recipe(params, type);
    };
    const auto own = [](lk_cache_params&) {};
    EXPECT_EQ(recipe(LK_CACHE_KIVI2, own).group, 64);
    EXPECT_EQ(recipe(LK_CACHE_KIVI2, own).refined_eighths, 3);
    EXPECT_EQ(recipe(LK_CACHE_KIVI2, own).ring, RowType::q8_0);
    EXPECT_EQ(recipe(LK_CACHE_KIVI4, own).group, 64);
    EXPECT_EQ(recipe(LK_CACHE_KIVI4, own).refined_eighths, 0);
    EXPECT_EQ(recipe(LK_CACHE_KIVI4, own).ring, RowType::q8_0);
    EXPECT_EQ(recipe(LK_CACHE_KIVI3, own).group, 32);
    EXPECT_EQ(recipe(LK_CACHE_KIVI3, own).refined_eighths, 4);
    EXPECT_EQ(recipe(LK_CACHE_KIVI3, own).ring, RowType::q8_0);
    EXPECT_EQ(recipe(LK_CACHE_KIVI2, [](auto& p) { p.refined = -1; }).refined_eighths, 0);
    EXPECT_EQ(recipe(LK_CACHE_KIVI2, [](auto& p) { p.refined = 8; }).refined_eighths, 8);
    EXPECT_EQ(recipe(LK_CACHE_KIVI4, [](auto& p) { p.refined = 8; }).refined_eighths, 0) << "kivi2 alone refines";
    EXPECT_EQ(recipe(LK_CACHE_KIVI4, [](auto& p) { p.residual_type = LK_ROWS_F16; }).ring, RowType::f16);
    for (const lk_cache_type type : {LK_CACHE_KIVI2_PAPER, LK_CACHE_KIVI4_PAPER}) {
        const Recipe paper = recipe(type, [](auto& p) {
            p.refined = 8;
            p.residual_type = LK_ROWS_Q8_0;
        });
        EXPECT_EQ(paper.group, 32);
        EXPECT_EQ(paper.refined_eighths, 0);
        EXPECT_EQ(paper.ring, RowType::f16);
    }
}

// The keys of *-paper and of stock types have no score correction.
TEST(Recipes, KeysOfEveryOtherKiviTypeCorrectScores) {
    for (const lk_cache_type type : test::kAllTypes) {
        const Recipe recipe = own_recipe(type);
        EXPECT_EQ(make_page_format(type, Side::keys, 64, recipe).score_correction, is_kivi(type) && !is_paper(type))
            << lk_cache_type_name(type);
    }
}

// Head tables and states have a place for a centre of the keys, which takes memory only where a recipe has one.
TEST(Recipes, AKeyCentreHasAPlaceInTablesAndStates) {
    constexpr int kHeadSize = 64;
    SideSpec spec = make_side_spec(Shape{.lengths = {0, 128}, .head_size = kHeadSize}.config(), Side::keys);
    const size_t without = spec.table_bytes();
    spec.format.recipe.key_centre = true;
    EXPECT_EQ(spec.table_bytes(), without + kHeadSize * sizeof(half_t));

    std::vector<uint8_t> bytes;
    const auto add = [&](const auto& x) {
        const auto* const from = reinterpret_cast<const uint8_t*>(&x);
        bytes.insert(bytes.end(), from, from + sizeof(x));
    };
    // Tokens in pages, sinks, tokens in the ring, undo rows, tables chosen, the base of undo, runs, blocks; then the
    // run.
    for (const int32_t x : {64, 0, 0, 0, 1, 64, 64, 1, 1, 1, 0, 0, 64, 0}) {
        add(x);
    }
    bytes.resize(bytes.size() + spec.block_bytes());
    add(int32_t{-3});
    for (int i = 0; i < spec.format.rows - kHeadSize; ++i) {
        add(static_cast<uint16_t>(2 * i));
    }
    const size_t centre_at = bytes.size();
    std::vector<half_t> centre;
    for (int c = 0; c < kHeadSize; ++c) {
        centre.push_back(float_to_half(0.25f * static_cast<float>(c)));
        add(centre.back());
    }

    const SideSpec* const specs[] = {&spec};
    StateReader in(bytes);
    const SideContent content = read_side(specs, in);
    EXPECT_EQ(in.left(), 0u);
    StagingBuffer copies(host_memory());
    SidePools pools(spec, host_memory(), copies);
    std::vector<SequenceSide> sides;
    sides.emplace_back(spec, pools);
    SideState::build(content, sides);
    EXPECT_EQ(sides[0].view(0, 0).table->centre, centre);
    EXPECT_EQ(sides[0].view(0, 0).table->refined.back(), 46);
    const SequenceSide* const parts[] = {sides.data()};
    std::vector<uint8_t> written(bytes.size());
    StateWriter out(written);
    SideState::write(parts, out);
    EXPECT_EQ(out.size(), bytes.size());
    EXPECT_EQ(written, bytes);

    const half_t nan = 0x7e00;
    std::memcpy(bytes.data() + centre_at, &nan, sizeof(nan));
    StateReader damaged(bytes);
    test::expect_error(LK_BAD_STATE, {"a centre of keys that is NaN"}, [&] { read_side(specs, damaged); });
}

// The GPU takes every type, recipe and window. It refuses a ring that its kernels cannot sort in shared memory.
TEST(Recipes, TheGpuTakesEveryRecipe) {
    for (const lk_cache_type type : test::kAllTypes) {
        for (const test::Lengths& lengths : test::kAllLengths) {
            EXPECT_NO_THROW(check_device_cache(Shape{.type_k = type, .type_v = type, .lengths = lengths}.config()));
        }
    }
    for (const test::NamedShape& s : test::recipe_shapes()) {
        EXPECT_NO_THROW(check_device_cache(s.shape.config())) << s.name;
    }
    EXPECT_NO_THROW(check_device_cache(Shape{.lengths = {32, 32736}}.config()));
    test::expect_error(LK_UNSUPPORTED,
                       {"values: cache.residual is 32737", "at most 32736 with kivi2 and cache.group 32", "on the CPU"},
                       [] {
                           check_device_cache(Shape{.type_k = LK_CACHE_F16, .lengths = {32, 32737}}.config());
                       });
    EXPECT_NO_THROW(check_device_cache(
        Shape{.type_k = LK_CACHE_KIVI4_PAPER, .type_v = LK_CACHE_KIVI2_PAPER, .lengths = {32, 65536}}.config()));
}

}  // namespace
}  // namespace lk::kv
