// Residual rings with rows in q8_0: what is stored, what attention reads, sinks, sequence operations, states and sizes.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kv/accounting.h"
#include "kv/state/state.h"
#include "kv/state/state_checksum.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::append;
using test::image_of;
using test::rows_of;
using test::Shape;
using test::Tokens;
using test::Whole;

// Saved state of sequence 0.
std::vector<uint8_t> state_of(Cache& cache) {
    std::vector<uint8_t> bytes(state_size(Whole(cache), 0));
    save_state(Whole(cache), 0, {}, bytes);
    return bytes;
}

constexpr int kHeadSizes[] = {64, 80, 96, 128, 256};
constexpr int kSinks = 4;

Shape shape_of(int head_size) {
    return {.lengths = {0, 128}, .head_size = head_size, .n_layer = 2, .n_head_kv = 2, .residual_type = LK_ROWS_Q8_0};
}

// The definition of a q8_0 row: blocks of 32 channels (the last may be short), scale = largest magnitude / 127 in half.
std::vector<float> rounded(const std::vector<float>& x) {
    std::vector<float> out;
    for (size_t begin = 0; begin < x.size(); begin += 32) {
        const size_t end = std::min(begin + 32, x.size());
        float largest = 0;
        for (size_t c = begin; c < end; ++c) {
            largest = std::max(largest, std::fabs(x[c]));
        }
        const float d = largest / 127;
        const float stored = half_to_float(float_to_half(d));
        for (size_t c = begin; c < end; ++c) {
            out.push_back(half_to_float(float_to_half(stored * (d > 0 ? std::round(x[c] / d) : 0))));
        }
    }
    return out;
}

std::vector<float> in_halves(std::vector<float> x) {
    for (float& v : x) {
        v = half_to_float(float_to_half(v));
    }
    return x;
}

std::vector<float> source_row(const Shape& shape, const std::vector<std::vector<float>>& rows, int layer, int head,
                              int token) {
    const size_t at = (static_cast<size_t>(token) * shape.n_head_kv + head) * shape.head_size;
    return {rows[layer].begin() + static_cast<ptrdiff_t>(at),
            rows[layer].begin() + static_cast<ptrdiff_t>(at + shape.head_size)};
}

// A loaded state's rows are checked by their scales where these are small.
TEST(RingRows, AreFiniteIfTheirElementsAre) {
    for (const int n : {32, 72, 128}) {
        std::vector<uint8_t> blocks(row_bytes(RowType::q8_0, n));
        std::vector<half_t> row(n);
        for (int scale = 0; scale < 0x10000; ++scale) {
            for (const int code : {0, 1, -128, 127}) {
                const size_t at = scale % 2 == 0 ? 0 : static_cast<size_t>((n - 1) / 32) * 34;  // first, last block
                std::fill(blocks.begin(), blocks.end(), uint8_t{0});
                const auto bits = static_cast<half_t>(scale);
                std::memcpy(blocks.data() + at, &bits, sizeof(bits));
                blocks[at + 2] = static_cast<uint8_t>(code);
                decode_q8_row(blocks.data(), n, row.data());
                const bool finite =
                    std::all_of(row.begin(), row.end(), [](half_t x) { return (x & 0x7c00) != 0x7c00; });
                ASSERT_EQ(is_finite_q8_row(blocks.data(), n), finite) << "scale " << scale << ", code " << code;
            }
        }
    }
}

TEST(Ring, RowsAreRoundedOnceAndSinksAreNot) {
    for (const int d : kHeadSizes) {
        const Shape shape = shape_of(d);
        Cache cache(shape.config());
        const Tokens tokens(shape, 150, d);
        append(cache, 0, tokens, 0, 90);
        const Segment segment{0, 0, 60};
        cache.reserve({&segment, 1});
        test::stage(cache, tokens, 90, 150);
        for (const Side side : {Side::keys, Side::values}) {
            for (int layer = 0; layer < shape.n_layer; ++layer) {
                for (int head = 0; head < shape.n_head_kv; ++head) {
                    const SideView view = cache.view(side, segment, layer, head);
                    for (int t = 0; t < 150; ++t) {
                        const std::vector<float> row =
                            source_row(shape, side == Side::keys ? tokens.k : tokens.v, layer, head, t);
                        ASSERT_EQ(test::cached_row(view, t), t < kSinks ? in_halves(row) : rounded(row))
                            << "D " << d << ", token " << t;
                    }
                }
            }
        }
    }
}

TEST(Ring, SinksOfAShortSequenceAreStagedExactly) {
    const Shape shape = shape_of(64);
    Cache cache(shape.config());
    const Tokens tokens(shape, 10, 3);
    append(cache, 0, tokens, 0, 2);
    append(cache, 0, tokens, 2, 10);
    for (int t = 0; t < 10; ++t) {
        const std::vector<float> row = source_row(shape, tokens.k, 0, 1, t);
        EXPECT_EQ(test::cached_row(cache.sequence(0).k.view(0, 1), t), t < kSinks ? in_halves(row) : rounded(row)) << t;
    }
    cache.truncate(0, 1);
    append(cache, 0, tokens, 5, 9);
    for (int t = 1; t < 5; ++t) {
        const std::vector<float> row = source_row(shape, tokens.k, 0, 1, t + 4);
        EXPECT_EQ(test::cached_row(cache.sequence(0).k.view(0, 1), t), t < kSinks ? in_halves(row) : rounded(row)) << t;
    }
}

TEST(Ring, ContentDependsOnTheOrderOfTokensAlone) {
    struct Case {
        int head_size;
        test::Lengths lengths;  // also a residual that is not a multiple of the group
    };
    for (const auto& [d, lengths] : {Case{64, {0, 128}}, Case{80, {0, 128}}, Case{128, {64, 100}}, Case{64, {128, 1}},
                                     Case{64, {16, 33}}, Case{80, {32, 31}}}) {
        Shape shape = shape_of(d);
        shape.lengths = lengths;
        const Tokens tokens(shape, 500, d);
        Cache cache(shape.config());
        append(cache, 0, tokens, 0, 500);
        std::mt19937 random(d);
        for (int begin = 0; begin < 500;) {
            const int end = std::min<int>(500, begin + 1 + static_cast<int>(random() % (begin < 20 ? 3 : 90)));
            append(cache, 1, tokens, begin, end);
            begin = end;
        }
        EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << d;
        cache.copy(0, 1);
        EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << d;
    }
}

// Tokens that move keep their rows: values bit for bit; keys are turned, and rounded again if they stay in the ring.
TEST(Ring, MovedRowsAreTheOldOnesAndTheFirstBecomeSinks) {
    const Shape shape = shape_of(64);
    for (const int n : {60, 400}) {
        for (const auto& [begin, end] : {std::pair{0, 1}, {0, 40}, {1, 3}, {2, 50}, {3, 55}, {20, 30}, {0, n - 5}}) {
            const Tokens tokens(shape, n, n);
            Cache cache(shape.config());
            append(cache, 0, tokens, 0, n);
            const SideView v = cache.sequence(0).v.view(0, 0);
            const SideView k = cache.sequence(0).k.view(0, 0);
            std::vector<std::vector<float>> values;
            std::vector<std::vector<float>> keys;
            for (int t = 0; t < n; ++t) {
                if (t >= begin && t < end) {
                    continue;
                }
                values.push_back(test::cached_row(v, t));
                keys.push_back(test::cached_row(k, t));
                if (t >= end) {
                    rotate_heads(test::rotation(64), -(end - begin), keys.back().data(), 1, 64);
                }
            }
            cache.remove(0, begin, end, test::rotation(64));
            const SideView moved_v = cache.sequence(0).v.view(0, 0);
            const SideView moved_k = cache.sequence(0).k.view(0, 0);
            ASSERT_EQ(moved_v.length(), n - (end - begin));
            const int n_sinks = moved_k.n_sinks;
            EXPECT_TRUE(n_sinks == kSinks || moved_k.n_paged > n_sinks) << begin << ".." << end;
            for (int t = 0; t < moved_v.length(); ++t) {
                ASSERT_EQ(test::cached_row(moved_v, t), values[t]) << t << " of " << begin << ".." << end;
                const std::vector<float> key = test::cached_row(moved_k, t);
                double largest = 0;
                for (const float x : keys[t]) {
                    largest = std::max(largest, std::fabs(static_cast<double>(x)));
                }
                for (int c = 0; c < 64; ++c) {
                    ASSERT_NEAR(key[c], keys[t][c], t < n_sinks ? largest * 1e-3 : largest / 200)
                        << t << " of " << begin << ".." << end;
                }
            }
        }
    }
}

TEST(Ring, StatesKeepRowsAndSinks) {
    for (const int d : {64, 80}) {
        for (const int n : {0, 2, 3, 100, 191, 192, 300}) {
            const Shape shape = shape_of(d);
            const Tokens tokens(shape, n + 200, n + d);
            Cache cache(shape.config());
            if (n > 0) {
                append(cache, 0, tokens, 0, n);
            }
            const std::vector<uint8_t> state = state_of(cache);
            load_state(Whole(cache), 1, {}, state);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << n;
            append(cache, 0, tokens, n, n + 200);
            append(cache, 1, tokens, n, n + 150);
            append(cache, 1, tokens, n + 150, n + 200);
            EXPECT_EQ(image_of(cache, 0).difference(image_of(cache, 1)), "") << n;

            Shape other = shape;
            other.residual_type = LK_ROWS_F16;
            Cache f16(other.config());
            test::expect_error(LK_BAD_STATE, {"ring rows of keys q8_0 in the state, f16 here"},
                               [&] { load_state(Whole(f16), 0, {}, state); });
        }
    }
}

TEST(Ring, StatesOfAnotherRecipeAreRefused) {
    const Shape shape = shape_of(64);
    Cache cache(shape.config());
    const Tokens tokens(shape, 200, 1);
    append(cache, 0, tokens, 0, 200);
    const std::vector<uint8_t> state = state_of(cache);
    const auto refused = [&](const Shape& other, const std::vector<std::string>& parts) {
        Cache here(other.config());
        test::expect_error(LK_BAD_STATE, parts, [&] { load_state(Whole(here), 0, {}, state); });
    };
    Shape other = shape_of(64);
    other.lengths = {32, 128};
    other.refined = 2;
    refused(other, {"group of keys 64 in the state, 32 here", "refined channels of keys 24 in the state, 16 here"});
    other = shape_of(64);
    other.refined = 8;
    refused(other, {"refined channels of keys 24 in the state, 64 here"});
    other = shape_of(64);
    other.lengths = {128, 128};
    refused(other, {"group of keys 64", "group of values 64 in the state, 128 here"});
}

TEST(Ring, DamagedBlocksOfAStateAreRefused) {
    const Shape shape = shape_of(64);
    Cache cache(shape.config());
    const Tokens tokens(shape, 20, 1);
    append(cache, 0, tokens, 0, 20);
    const std::vector<uint8_t> state = state_of(cache);
    // The payload begins with ten counts; then comes the ring of the first head.
    const size_t ring = sizeof(StateHeader) + 10 * sizeof(int32_t);
    for (const uint16_t scale : {0x7c00, 0x7e00, 0xfc00, 0x7bff}) {  // infinity, NaN, and 127 steps out of range
        std::vector<uint8_t> forged = state;
        std::memcpy(forged.data() + ring, &scale, sizeof(scale));
        const uint64_t sum = state_checksum(std::span(forged).first(forged.size() - sizeof(uint64_t)));
        std::memcpy(forged.data() + forged.size() - sizeof(sum), &sum, sizeof(sum));
        test::expect_error(LK_BAD_STATE, {"a ring of keys that holds NaN or infinity"},
                           [&] { load_state(Whole(cache), 1, {}, forged); });
    }
}

// The largest numbers that 16 bits hold stay finite in blocks.
TEST(Ring, TheLargestNumbersStayFinite) {
    for (const float x : {65504.0f, -65504.0f, 65503.0f}) {
        const std::vector<float> row(64, x);
        std::vector<uint8_t> blocks(row_bytes(RowType::q8_0, 64));
        std::vector<half_t> out(64);
        encode_q8_row(row.data(), 64, blocks.data());
        decode_q8_row(blocks.data(), 64, out.data());
        for (const half_t h : out) {
            EXPECT_NEAR(half_to_float(h), x, 64) << x;
        }
    }
}

TEST(Ring, SizesFollowTheFormula) {
    for (const int d : kHeadSizes) {
        for (const lk_row_type type : {LK_ROWS_F16, LK_ROWS_Q8_0}) {
            Shape shape = shape_of(d);
            shape.residual_type = type;
            const CacheConfig config = shape.config();
            const size_t row = type == LK_ROWS_F16 ? 2 * d : d + 2 * ((d + 31) / 32);
            const size_t heads = 2 * 2 * 2;  // layers, KV heads, sides
            EXPECT_EQ(fixed_bytes(config), heads * ((192 + kDefaultUndo) * row + kSinks * 2 * d) * shape.n_seq);
            EXPECT_EQ(staging_bytes(config), heads * shape.n_ubatch * (2 * d + (type == LK_ROWS_F16 ? 0 : row)));
            Cache cache(config);
            EXPECT_EQ(cache.usage().allocated_bytes, 0u);
            const Tokens tokens(shape, 300, 1);
            append(cache, 0, tokens, 0, 20);
            EXPECT_GE(cache.usage().allocated_bytes, fixed_bytes(config) / shape.n_seq);
            const size_t early = type == LK_ROWS_F16 ? 0 : kSinks;
            EXPECT_EQ(cache.usage().exact_bytes, heads * (20 * row + early * 2 * d));
            append(cache, 0, tokens, 20, 300);
            const int n_ring = cache.sequence(0).k.n_ring();
            EXPECT_EQ(n_ring, 300 - 128);
            EXPECT_EQ(cache.usage().exact_bytes, heads * (n_ring * row + kSinks * 2 * d));
        }
    }
}

}  // namespace
}  // namespace lk::kv
