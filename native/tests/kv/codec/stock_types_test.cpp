// The stock cache types: blocks against their formulas, windows and sinks, and the wide range of f32 and bf16.
#include <cmath>
#include <cstring>
#include <limits>

#include "kv/codec/scalar_codec.h"
#include "kv/codec/stock_blocks.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::Shape;
using test::Tokens;

constexpr int kBlockChannels = 32;

std::vector<float> decoded(lk_cache_type type, const std::vector<float>& x) {
    std::vector<uint8_t> blocks(x.size() / kBlockChannels * stock_format(type).block_bytes);
    encode_blocks(type, x.data(), static_cast<int>(x.size()), blocks.data());
    std::vector<float> out(x.size());
    decode_blocks(type, blocks.data(), out.data(), static_cast<int>(x.size()));
    return out;
}

std::vector<float> draw(int n, uint32_t seed, float offset = 0) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    std::generate(x.begin(), x.end(), [&] { return offset + normal(random); });
    return x;
}

// Root mean square error of Gaussian elements, relative to their own.
double error_of(lk_cache_type type, float offset) {
    const std::vector<float> x = draw(1 << 14, 3, offset);
    const std::vector<float> y = decoded(type, x);
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        sum += std::pow(static_cast<double>(x[i]) - y[i], 2);
    }
    return std::sqrt(sum / static_cast<double>(x.size()));
}

// Steps of the block that holds element i: the largest magnitude, or the span, over the number of steps.
double step_of(lk_cache_type type, const std::vector<float>& x, size_t i) {
    const auto begin = x.begin() + static_cast<ptrdiff_t>(i / kBlockChannels * kBlockChannels);
    const auto [least, most] = std::minmax_element(begin, begin + kBlockChannels);
    const double largest = std::max(std::fabs(*least), std::fabs(*most));
    switch (type) {
    case LK_CACHE_Q8_0:
        return largest / 127;
    case LK_CACHE_Q5_0:
        return largest / 16;
    case LK_CACHE_Q4_0:
        return largest / 8;
    case LK_CACHE_Q5_1:
        return (static_cast<double>(*most) - *least) / 31;
    default:
        return (static_cast<double>(*most) - *least) / 15;
    }
}

// An element is off by half a step, and by the rounding of the scale to half. The types without a minimum have one step
// less on the side opposite to the element of largest magnitude.
TEST(StockBlocks, ElementsAreWithinHalfAStep) {
    for (const lk_cache_type type : {LK_CACHE_Q8_0, LK_CACHE_Q5_1, LK_CACHE_Q5_0, LK_CACHE_Q4_1, LK_CACHE_Q4_0}) {
        const bool one_sided = type == LK_CACHE_Q5_0 || type == LK_CACHE_Q4_0;
        const std::vector<float> x = draw(4096, 5, 1);
        const std::vector<float> y = decoded(type, x);
        int n_over_half = 0;
        for (size_t i = 0; i < x.size(); ++i) {
            const double off = std::fabs(x[i] - y[i]) / step_of(type, x, i);
            ASSERT_LT(off, one_sided ? 1.04 : 0.54) << lk_cache_type_name(type) << ", element " << i;
            n_over_half += off > 0.54;
        }
        EXPECT_LT(n_over_half, 40) << lk_cache_type_name(type);
    }
}

// Known errors of uniform quantizers of a Gaussian block, and the order of the types.
TEST(StockBlocks, ErrorsFollowTheBits) {
    const double q8_0 = error_of(LK_CACHE_Q8_0, 0);
    const double q5_1 = error_of(LK_CACHE_Q5_1, 0);
    const double q5_0 = error_of(LK_CACHE_Q5_0, 0);
    const double q4_1 = error_of(LK_CACHE_Q4_1, 0);
    const double iq4_nl = error_of(LK_CACHE_IQ4_NL, 0);
    const double q4_0 = error_of(LK_CACHE_Q4_0, 0);
    EXPECT_NEAR(q8_0, 0.0055, 0.0008);
    EXPECT_NEAR(q5_0, 0.042, 0.005);
    EXPECT_NEAR(q4_0, 0.086, 0.008);
    EXPECT_LT(q8_0, q5_1);
    EXPECT_LT(q5_1, q5_0);
    EXPECT_LT(q5_0, q4_1);
    EXPECT_LT(q4_1, q4_0);
    EXPECT_LT(iq4_nl, q4_0);
    // A minimum pays where elements have an offset.
    EXPECT_LT(error_of(LK_CACHE_Q4_1, 3), 0.6 * error_of(LK_CACHE_Q4_0, 3));
}

TEST(StockBlocks, ZerosAndConstantsAreKept) {
    for (const lk_cache_type type : test::kBlockTypes) {
        EXPECT_EQ(decoded(type, std::vector<float>(32)), std::vector<float>(32)) << lk_cache_type_name(type);
        for (const float x : decoded(type, std::vector<float>(32, -1.5f))) {
            EXPECT_NEAR(x, -1.5f, 0.002f) << lk_cache_type_name(type);
        }
    }
}

// IQ4_NL: codes go to the nearest level of the scale that maps the extreme element to -127.
TEST(StockBlocks, Iq4CodesAreTheNearestLevels) {
    for (int i = 0; i < 2600; ++i) {
        const float x = -130.0f + 0.1f * static_cast<float>(i);
        const int code = iq4_code(x, 1);
        for (int other = 0; other < 16; ++other) {
            EXPECT_LE(std::fabs(x - static_cast<float>(iq4_level(code))),
                      std::fabs(x - static_cast<float>(iq4_level(other))) + 1e-4f)
                << x;
        }
    }
}

// docs/kv-cache.md: a query at position p reads tokens below max(0, p + 1 - R) from pages, the others as ring rows.
TEST(StockWindows, QueriesSeeTheYoungestRowsExactly) {
    constexpr int kTokens = 300;
    for (const lk_cache_type type : test::kBlockTypes) {
        for (const int residual : {1, 33, 128}) {
            const Shape shape{
                .type_k = type, .type_v = type, .lengths = {32, residual}, .n_seq = 1, .sinks = 4, .windows = true};
            SCOPED_TRACE(shape.text());
            Cache cache(shape.config());
            const Tokens tokens(shape, kTokens, 9);
            int at = 0;
            for (const int n : {1, 7, 130, 2, 100, 60}) {
                const Segment segment{0, 0, n};
                test::stage_call(cache, {&segment, 1}, tokens, at, at + n);
                const SideView view = cache.view(Side::keys, segment, 0, 0);
                for (int i = 0; i < n; ++i) {
                    const int p = at + i;
                    const int paged = view.paged_for(i);
                    ASSERT_EQ(paged, std::max(0, p + 1 - residual)) << p;
                    ASSERT_EQ(view.sinks_for(paged), std::min(paged, 4));
                    std::vector<float> row(shape.head_size);
                    for (const int t : {0, 3, 4, p - residual, p + 1 - residual, p}) {
                        if (t < 0 || t > p) {
                            continue;
                        }
                        read_row(view, t, paged, {}, row.data());
                        double off = 0;
                        double largest = 0;
                        for (int c = 0; c < shape.head_size; ++c) {
                            const float x = tokens.k[0][static_cast<size_t>(t) * tokens.width + c];
                            off = std::max(off, std::fabs(static_cast<double>(x) - row[c]));
                            largest = std::max(largest, std::fabs(static_cast<double>(x)));
                        }
                        const bool exact = t < 4 || t >= paged;
                        ASSERT_EQ(off <= largest / 1024, exact) << "token " << t << " of the query at " << p;
                    }
                }
                test::append(cache, 0, tokens, at, at + n);
                at += n;
            }
            EXPECT_EQ(cache.sequence(0).k.n_ring(), residual);
        }
    }
}

// f32, f16 and bf16 have no ring and no sinks, whatever the settings.
TEST(StockWindows, FloatsHaveNone) {
    for (const lk_cache_type type : {LK_CACHE_F32, LK_CACHE_F16, LK_CACHE_BF16}) {
        const Shape shape{.type_k = type, .type_v = type, .sinks = 4, .windows = true};
        const SideSpec spec = make_side_spec(shape.config(), Side::keys);
        EXPECT_EQ(spec.ageing.trigger, 1);
        EXPECT_EQ(spec.sinks, 0);
    }
}

TEST(StockFloats, KeepTheirRangeAndTheirBits) {
    for (const lk_cache_type type : {LK_CACHE_F32, LK_CACHE_BF16}) {
        const Shape shape{.type_k = type, .type_v = type, .n_layer = 2, .n_head_kv = 2};
        Tokens tokens(shape, 200, 3);
        tokens.k[1][5] = 3e38f;
        tokens.v[1][7] = -1e-30f;
        Cache cache(shape.config());
        test::append(cache, 0, tokens, 0, 70);
        test::append(cache, 0, tokens, 70, 200);
        const auto rows = test::rows_of(cache, 0, 200);
        const auto stored = [&](float x) {
            const uint32_t bits = bits_as<uint32_t>(x);
            return type == LK_CACHE_F32 ? x : bits_as<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
        };
        for (int layer = 0; layer < 2; ++layer) {
            for (int head = 0; head < 2; ++head) {
                for (int t = 0; t < 200; ++t) {
                    const auto& key = rows[(static_cast<size_t>(layer) * 2 + head) * 200 + t];
                    for (int c = 0; c < 64; ++c) {
                        const size_t at = static_cast<size_t>(t) * tokens.width + head * 64 + c;
                        ASSERT_EQ(key[c], stored(tokens.k[layer][at])) << lk_cache_type_name(type);
                    }
                }
            }
        }
    }
    // Rounds to infinity in bf16.
    const Shape shape{.type_k = LK_CACHE_BF16, .type_v = LK_CACHE_F32};
    Tokens tokens(shape, 1, 3);
    tokens.k[0][0] = tokens.v[0][0] = std::numeric_limits<float>::max();
    Cache cache(shape.config());
    test::expect_error(LK_NUMERIC_ERROR, {"key", "infinite"}, [&] { test::append(cache, 0, tokens, 0, 1); });
}

}  // namespace
}  // namespace lk::kv
