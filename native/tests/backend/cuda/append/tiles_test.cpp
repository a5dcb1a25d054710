// Runs the thread blocks of the CUDA backend's page kernels on the host, lane by lane: their pages must equal the
// CPU's, byte by byte. Needs no GPU.
#include "support/lane_fibers.h"

#if defined(__linux__)
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "backend/cuda/append/channel_median.h"
#include "backend/cuda/append/tile_steps.h"
#include "kv/codec/quantizer.h"
#include "kv/config.h"
#include "support/kv_helpers.h"

namespace lk {
namespace {

using cuda::AppendWork;
using cuda::PageStep;
using cuda::SideShape;
using kv::PageFormat;
using kv::Side;
using test::LaneFibers;

// Rows of one head: in a ring that wraps, then staged.
struct Rows {
    int n_ring;  // of n
    bool q8;
    int n = 0;
    int d = 0;
    int start = 0;
    int ring_rows = 0;
    std::vector<uint8_t> ring;
    std::vector<half_t> staged;
    std::vector<float> floats;  // [n, D], as the CPU reads them

    Rows(std::vector<half_t> rows, int head_size, int in_ring, bool q8_ring)
        : n_ring(in_ring), q8(q8_ring), n(static_cast<int>(rows.size()) / head_size), d(head_size) {
        ring_rows = n_ring + 5;
        start = n_ring > 0 ? ring_rows - n_ring / 2 : 0;  // wraps among the rows
        const size_t row_bytes = kv::row_bytes(q8 ? kv::RowType::q8_0 : kv::RowType::f16, d);
        ring.resize(ring_rows * row_bytes);
        floats.resize(rows.size());
        std::vector<float> row(d);
        std::vector<half_t> decoded(d);
        for (int i = 0; i < n; ++i) {
            half_t* const from = rows.data() + static_cast<size_t>(i) * d;
            std::transform(from, from + d, row.begin(), half_to_float);
            if (i < n_ring) {
                uint8_t* const to = ring.data() + (start + i) % ring_rows * row_bytes;
                if (q8) {
                    kv::encode_q8_row(row.data(), d, to);
                    kv::decode_q8_row(to, d, from);
                } else {
                    std::memcpy(to, from, row_bytes);
                }
            } else {
                staged.insert(staged.end(), from, from + d);
            }
            std::transform(from, from + d, floats.begin() + static_cast<ptrdiff_t>(i) * d, half_to_float);
        }
        staged.resize(staged.size() + 8);
    }
};

// Halves as a model's: channels differ in range and centre. Some rows are special.
std::vector<half_t> random_halves(int n, int d, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> spread(d);
    std::vector<float> centre(d);
    for (int c = 0; c < d; ++c) {
        spread[c] = std::exp(0.7f * normal(random));
        centre[c] = seed % 2 == 0 ? 2 * normal(random) : 0.0f;
    }
    std::vector<half_t> rows(static_cast<size_t>(n) * d);
    for (int i = 0; i < n; ++i) {
        const int kind = static_cast<int>(random() % 16);
        for (int c = 0; c < d; ++c) {
            float x = centre[c] + spread[c] * normal(random);
            x = kind == 0   ? (c % 2 == 0 ? 0.0f : -0.0f)
                : kind == 1 ? x * 0x1p-20f  // subnormal halves
                : kind == 2 ? x * 1000
                : kind == 3 ? (c == 3 ? -5.0f : 0.0f)  // the rotated elements are all equal in magnitude
                : kind == 4 ? std::round(x)
                            : x;
            rows[static_cast<size_t>(i) * d + c] = float_to_half(std::clamp(x, -60000.0f, 60000.0f));
        }
    }
    return rows;
}

SideShape shape_of(const PageFormat& f, const Rows& rows) {
    SideShape shape{};
    shape.format = f;
    shape.ring_rows = rows.ring_rows;
    shape.n_ubatch = rows.n;
    shape.table_bytes = 4 + 2 * 2 * kv::kMaxHeadSize;
    shape.ring_row_bytes = static_cast<int>(kv::row_bytes(rows.q8 ? kv::RowType::q8_0 : kv::RowType::f16, rows.d));
    shape.staged_width = rows.d;
    return shape;
}

std::vector<uint8_t> table_bytes(const kv::HeadTable& table, size_t n) {
    std::vector<uint8_t> bytes(n);
    std::memcpy(bytes.data(), &table.exponent, sizeof table.exponent);
    const std::vector<uint16_t>& list = table.refined.empty() ? table.mu : table.refined;
    if (!list.empty()) {
        std::memcpy(bytes.data() + 4, list.data(), list.size() * 2);
    }
    return bytes;
}

template <int kHead, int kBits>
void run_value_tiles(const SideShape& shape, const AppendWork& work, const PageStep& step) {
    for (int i = 0; i < cuda::kStepTiles<kHead>; ++i) {
        cuda::ValueScratch scratch;
        LaneFibers::run(32, [&](const auto& threads) {
            cuda::stage_value_tile<kHead, kBits>(threads, shape, &work, &step, i, 0, scratch);
        });
    }
}

template <int kBits, int kTokens, int kHead>
void run_key_group(const SideShape& shape, const AppendWork& work, const PageStep& step) {
    const cuda::KeyBlock block(shape.format);
    std::vector<uint32_t> memory(block.shared_bytes(shape.format) / 4);
    LaneFibers::run(block.threads(), [&](const auto& threads) {
        cuda::stage_key_group<kBits, kTokens, kHead>(threads, shape, &work, &step, 0, 0,
                                                     reinterpret_cast<uint8_t*>(memory.data()));
    });
}

void run(const SideShape& shape, const AppendWork& work, const PageStep& step) {
    const PageFormat& f = shape.format;
    if (f.side == Side::keys) {
        const bool known = f.tile_tokens == 32 && f.head_size == 128;
        const auto kernel = f.tile_tokens == 16 ? (f.bits == 2 ? run_key_group<2, 16, 0> : run_key_group<4, 16, 0>)
                            : known             ? (f.bits == 2 ? run_key_group<2, 32, 128> : run_key_group<4, 32, 128>)
                                                : (f.bits == 2 ? run_key_group<2, 32, 0> : run_key_group<4, 32, 0>);
        kernel(shape, work, step);
    } else if (f.head_size == 128) {
        (f.bits == 2 ? run_value_tiles<128, 2> : run_value_tiles<128, 3>)(shape, work, step);
    } else {
        (f.bits == 2 ? run_value_tiles<64, 2> : run_value_tiles<64, 3>)(shape, work, step);
    }
}

struct Case {
    int n_ring;  // rows in the ring
    bool q8;
    int row;  // first row of the step
    int n;
    int token;
    int sinks;
};

// Pages with other tokens in them, written by both.
void expect_equal_pages(const PageFormat& f, const Case& c, uint32_t seed) {
    SCOPED_TRACE(format("%s, D %d, G %d, %d of %d in a ring, q8 %d, rows %d to %d, token %d, %d sinks, seed %u",
                        lk_cache_type_name(f.type), f.head_size, f.group, c.n_ring, c.row + c.n, c.q8, c.row,
                        c.row + c.n, c.token, c.sinks, seed));
    const int n_rows = std::max(c.row + c.n, 40);
    const Rows rows(random_halves(n_rows, f.head_size, seed), f.head_size, std::min(c.n_ring, n_rows), c.q8);
    const SideShape shape = shape_of(f, rows);
    kv::HeadTable table = kv::choose_head_table(f, rows.floats.data(), n_rows, 0, c.row + c.sinks);
    table.exponent -=
        seed % 4 == 3 ? 7 : 0;  // as after rows with a far smaller range: the largest byte scale is too small
    std::vector<uint8_t> tables = table_bytes(table, shape.table_bytes);
    std::vector<uint32_t> expected(f.page_bytes / 4 + 1);
    std::mt19937 random(seed);
    std::generate(expected.begin(), expected.end(), random);
    std::vector<uint32_t> actual = expected;
    kv::quantize_rows(f, table, rows.floats.data() + static_cast<ptrdiff_t>(c.row) * f.head_size, c.n, c.token, c.sinks,
                      reinterpret_cast<uint8_t*>(expected.data()));
    AppendWork work{};
    work.ring = c.q8 ? nullptr : reinterpret_cast<uint16_t*>(const_cast<uint8_t*>(rows.ring.data()));
    work.ring_blocks = c.q8 ? const_cast<uint8_t*>(rows.ring.data()) : nullptr;
    work.tables = tables.data();
    work.staged = rows.staged.data();
    work.ring_start = rows.start;
    work.n_ring = rows.n_ring;
    work.sink_limit = c.row + c.sinks;
    const PageStep step{reinterpret_cast<uint8_t*>(actual.data()), 0, c.row, c.n, c.token};
    run(shape, work, step);
    const auto* const a = reinterpret_cast<const uint8_t*>(actual.data());
    const auto* const b = reinterpret_cast<const uint8_t*>(expected.data());
    const size_t bytes = expected.size() * 4;
    const size_t first = std::mismatch(a, a + bytes, b).first - a;
    EXPECT_EQ(first, bytes) << "of " << std::inner_product(a, a + bytes, b, 0, std::plus<>(), std::not_equal_to<>())
                            << " different bytes; scales start at " << f.scales_offset;
}

TEST(CudaAppendTiles, ValuesEqualTheCpus) {
    uint32_t seed = 1;
    for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI3}) {
        for (const int d : {64, 128}) {
            const PageFormat f = kv::make_page_format(type, Side::values, d, kv::own_recipe(type));
            ASSERT_TRUE(cuda::has_value_tiles(f));
            for (const bool q8 : {true, false}) {
                for (const Case& c :
                     {Case{64, q8, 0, 32, 0, 0}, Case{64, q8, 7, 32, 32, 0}, Case{40, q8, 20, 32, 64, 0},
                      Case{0, q8, 3, 32, 96, 0}, Case{64, q8, 9, 1, 5, 0}, Case{64, q8, 9, 5, 27, 0},
                      Case{64, q8, 9, 11, 16, 0}, Case{64, q8, 0, 27, 101, 5}, Case{64, q8, 2, 32, 0, 4},
                      Case{64, q8, 2, 20, 0, 20}}) {
                    for (int i = 0; i < 2; ++i) {
                        expect_equal_pages(f, c, seed++);
                    }
                }
            }
        }
    }
}

TEST(CudaAppendTiles, KeysEqualTheCpus) {
    uint32_t seed = 1;
    for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_KIVI4}) {
        for (const int d : {64, 80, 128, 256}) {
            for (const int group : {16, 64, 128}) {
                for (const int refined : {0, 3, 8}) {
                    if (refined > 0 && type != LK_CACHE_KIVI2) {
                        continue;
                    }
                    kv::Recipe recipe = kv::own_recipe(type);
                    recipe.group = group;
                    recipe.refined_eighths = type == LK_CACHE_KIVI2 ? refined : recipe.refined_eighths;
                    const PageFormat f = kv::make_page_format(type, Side::keys, d, recipe);
                    ASSERT_TRUE(cuda::has_key_tiles(f));
                    const int token = 128 - group;
                    for (const bool q8 : {true, false}) {
                        if (!q8 && d != 80) {
                            continue;
                        }
                        for (const Case& c :
                             {Case{group + 3, q8, 1, group, token, 0}, Case{group / 2 + 3, q8, 1, group, 0, 0},
                              Case{0, q8, 2, group, token, 0}, Case{group, q8, 0, group, 0, 4},
                              Case{group, q8, 0, group, token, group - 1}, Case{group, q8, 0, group, 0, group}}) {
                            expect_equal_pages(f, c, seed++);
                        }
                    }
                }
            }
        }
    }
}

TEST(CudaAppendTiles, MediansOfChannelsAreExact) {
    for (const int n : {1, 2, 3, 31, 32, 33, 64, 151, 192, 255, 256}) {
        for (uint32_t seed = 1; seed < 6; ++seed) {
            // Few values in some columns: many rows equal the median.
            std::vector<half_t> column = random_halves(n, 4, seed);
            column.resize(n);
            if (seed > 3) {
                std::transform(column.begin(), column.end(), column.begin(), [](half_t x) { return x & 0xfc00; });
            }
            std::vector<float> sorted(n);
            std::transform(column.begin(), column.end(), sorted.begin(), half_to_float);
            std::sort(sorted.begin(), sorted.end());
            const float expected = n % 2 == 1 ? sorted[n / 2] : 0.5f * (sorted[n / 2 - 1] + sorted[n / 2]);
            LaneFibers::run(32, [&](const auto& threads) {
                const float median = cuda::channel_median(threads, n, [&](int i) { return column[i]; });
                EXPECT_EQ(median, expected) << n << " rows, seed " << seed;
            });
        }
    }
}

// Quotients by byte scales, which have five bits of mantissa, and by the constants of kv::byte_pair_scale are those of
// a division. LK_TEST_EVERY_QUOTIENT: of every float.
TEST(CudaAppendTiles, QuotientsAreRounded) {
    const int stride = std::getenv("LK_TEST_EVERY_QUOTIENT") != nullptr ? 1 : 61;
    std::vector<float> divisors = {3 - kv::kZeroPointSlack, 15 - kv::kZeroPointSlack, kv::kZeroPointLimit};
    for (int m = 16; m < 32; ++m) {
        divisors.push_back(static_cast<float>(m) / 16);
    }
    for (const float s : divisors) {
        const float inverse = 1.0f / s;
        for (int i = 0; i < 1 << 23; i += stride) {
            const float a = 1.0f + static_cast<float>(i) * 0x1p-23f;
            ASSERT_EQ(cuda::divided(a, s, inverse), a / s) << a << " by " << s;
            ASSERT_EQ(cuda::divided(-a, s, inverse), -a / s) << a << " by " << s;
        }
    }
}

// The scale of keys without divisions is kv::BytePair.
TEST(CudaAppendTiles, KeyScalesAreTheCpus) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (int i = 0; i < 200000; ++i) {
        const float size = std::ldexp(1.0f, static_cast<int>(random() % 34) - 20);
        const float a = half_to_float(float_to_half(size * normal(random)));
        const float b = random() % 8 == 0 ? a : half_to_float(float_to_half(size * normal(random)));
        const float low = std::min(a, b);
        const float high = std::max(a, b);
        const bool fine = random() % 2 == 0;
        const int levels = fine ? 16 : 4;
        const int k =
            kv::byte_scale_exponent(kv::byte_pair_scale(low, high, levels)) + static_cast<int>(random() % 9) - 4;
        const kv::BytePair expected(low, high, levels, k, true);
        const cuda::KeyScale actual(low, high, fine, k);
        ASSERT_EQ(actual.scale, expected.scale) << low << " " << high;
        ASSERT_EQ(static_cast<int8_t>(actual.zero), expected.zero) << low << " " << high;
        ASSERT_EQ(actual.s, expected.s);
        ASSERT_EQ(actual.m, expected.m);
    }
}

// Codes at and beside the thresholds of values.
TEST(CudaAppendTiles, ValueCodesAtThresholdsAreTheCpus) {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> uniform(1, 4);
    for (int i = 0; i < 2000; ++i) {
        const float step = uniform(random);
        float w[cuda::kPartChannels] = {};
        const float at[] = {step, -step, 0, 2 * step, -2 * step};
        for (int c = 0; c < cuda::kPartChannels; ++c) {
            const float x = at[c / 3 % 5];
            const float beside = c % 3 == 1 ? 100.0f : -100.0f;
            w[c] = c % 3 == 0 ? x : x == 0 ? beside * 0x1p-40f : std::nextafter(x, beside);
        }
        uint32_t planes[2][2] = {};
        int level_square = 0;
        cuda::ValueEncoder<64, 2>::two_bits(w, step, planes, level_square);
        for (int c = 0; c < cuda::kPartChannels; ++c) {
            const uint32_t code = (planes[0][c / 32] >> c % 32 & 1) | (planes[1][c / 32] >> c % 32 & 1) << 1;
            ASSERT_EQ(static_cast<int>(code), kv::value_code(w[c], step)) << w[c] << " of " << step;
        }
    }
}

// A lane that has a row of 64 channels for itself.
struct OneLane {
    int* votes;
    int lane() const { return 0; }
    uint32_t vote(bool x) const {
        *votes += x;
        return x;
    }
};

// Sums of floats give the codes and scales of sums of doubles, or notice that they may not: also beside thresholds.
TEST(CudaAppendTiles, SumsOfFloatsAreCheckedAgainstTheirErrors) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    const char* const many = std::getenv("LK_TEST_VALUE_ROWS");
    const int n = many != nullptr ? std::atoi(many) : 60000;
    int in_doubles = 0;
    int wrong_unchecked = 0;
    for (int i = 0; i < n; ++i) {
        float w[cuda::kPartChannels];
        const float size = std::ldexp(1.0f, static_cast<int>(random() % 20) - 10);
        for (float& x : w) {
            x = size * normal(random) * (random() % 64 == 0 && i % 3 == 0 ? 100.0f : 1.0f);
        }
        const auto exact = [&](double& square) {
            square = 0;
            for (const float x : w) {
                square += static_cast<double>(x) * x;
            }
            return kv::value_step(square / cuda::kPartChannels);
        };
        double square = 0;
        float step = exact(square);
        if (i % 2 == 0) {
            // Elements within an error of the step.
            for (int c = 0; c < 4; ++c) {
                w[random() % cuda::kPartChannels] =
                    step * (1 + normal(random) * 0x1p-22f) * (c % 2 == 0 ? 1.0f : -1.0f);
            }
            step = exact(square);
        }
        double along = 0;
        double level_square = 0;
        for (const float x : w) {
            const double level = kv::value_level(kv::value_code(x, step));
            along += x * level;
            level_square += level * level;
        }
        const float scale = kv::halfway_scale(square, along, level_square);
        const int k = kv::byte_scale_exponent(scale) - static_cast<int>(random() % 4);
        uint32_t low[2][2] = {};
        uint32_t high[2] = {};
        using Encoder = cuda::ValueEncoder<64, 2>;
        int votes = 0;
        ASSERT_EQ(Encoder::encode(OneLane{&votes}, 0, k, w, low, high), kv::byte_scale_round_nearest(scale, k));
        in_doubles += i % 2 == 1 ? votes : 0;
        uint8_t in_floats = 0;
        uint32_t planes[2][2] = {};
        Encoder::encode_in_floats(OneLane{&votes}, k, w, planes, in_floats);
        for (int c = 0; c < cuda::kPartChannels; ++c) {
            const auto code = [&](const uint32_t(&of)[2][2]) {
                return static_cast<int>((of[0][c / 32] >> c % 32 & 1) | (of[1][c / 32] >> c % 32 & 1) << 1);
            };
            ASSERT_EQ(code(low), kv::value_code(w[c], step)) << i << ": " << w[c] << " of " << step;
            wrong_unchecked += code(planes) != code(low);
        }
    }
    EXPECT_GT(wrong_unchecked, 0) << "no row needs the check";
    EXPECT_LT(in_doubles, n / 2 / 200) << "of " << n / 2 << " random rows";
    std::printf("%d of %d random rows in doubles; unchecked, %d codes would differ\n", in_doubles, n / 2,
                wrong_unchecked);
}

}  // namespace
}  // namespace lk
#endif
