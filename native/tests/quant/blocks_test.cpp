// Every weight format against an independent packer: the tests draw codes and scales, pack them into blocks by layout,
// and compare the dequantized values with the format's formula on the drawn numbers.
#include "quant/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"

namespace lk {
namespace {

class Blocks : public testing::Test {
protected:
    static constexpr int kBlocks = 50;

    int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

    // Draws a finite half of either sign; value: its value.
    half_t draw_half(double& value) {
        const int mantissa = draw(-2047, 2047);
        const int exponent = draw(-14, 0);
        value = std::ldexp(mantissa, exponent - 10);
        return float_to_half(static_cast<float>(value));
    }

    // Draws and packs eight pairs of 6-bit scales and minimums.
    void draw_pairs(uint8_t* scales, int* sc, int* m) {
        for (int j = 0; j < 8; ++j) {
            sc[j] = draw(0, 63);
            m[j] = draw(0, 63);
        }
        for (int j = 0; j < 4; ++j) {
            scales[j] = static_cast<uint8_t>(sc[j] + sc[j + 4] / 16 * 64);
            scales[j + 4] = static_cast<uint8_t>(m[j] + m[j + 4] / 16 * 64);
            scales[j + 8] = static_cast<uint8_t>(sc[j + 4] % 16 + m[j + 4] % 16 * 16);
        }
    }

    // A half times small integers is exact in float, so only the sum can round.
    template <class Block>
    void expect_row(WeightType type, const std::vector<Block>& blocks, const std::vector<double>& expected) {
        ASSERT_EQ(weight_type_traits(type)->block_bytes, sizeof(Block));
        ASSERT_EQ(expected.size(), blocks.size() * weight_type_traits(type)->block_elements);
        // Misaligned by one byte, as blocks in a file may be.
        std::vector<uint8_t> bytes(blocks.size() * sizeof(Block) + 1);
        std::memcpy(bytes.data() + 1, blocks.data(), blocks.size() * sizeof(Block));
        std::vector<float> actual(expected.size(), -1e30f);
        dequantize_row(type, bytes.data() + 1, actual.data(), static_cast<int64_t>(actual.size()));
        for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_EQ(actual[i], static_cast<float>(expected[i])) << "element " << i;
        }
    }

    std::mt19937 random_{20240601};
};

TEST_F(Blocks, Q8_0) {
    std::vector<BlockQ8_0> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ8_0& b : blocks) {
        double d;
        b.d = draw_half(d);
        for (int j = 0; j < 32; ++j) {
            const int q = draw(-128, 127);
            b.qs[j] = static_cast<int8_t>(q);
            expected.push_back(q * d);
        }
    }
    expect_row(WeightType::Q8_0, blocks, expected);
}

TEST_F(Blocks, Q4_0) {
    std::vector<BlockQ4_0> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ4_0& b : blocks) {
        double d;
        b.d = draw_half(d);
        std::memset(b.qs, 0, sizeof(b.qs));
        for (int j = 0; j < 32; ++j) {
            const int q = draw(0, 15);
            b.qs[j % 16] = static_cast<uint8_t>(b.qs[j % 16] + (j < 16 ? q : q * 16));
            expected.push_back((q - 8) * d);
        }
    }
    expect_row(WeightType::Q4_0, blocks, expected);
}

TEST_F(Blocks, Q4_1) {
    std::vector<BlockQ4_1> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ4_1& b : blocks) {
        double d, m;
        b.d = draw_half(d);
        b.m = draw_half(m);
        std::memset(b.qs, 0, sizeof(b.qs));
        for (int j = 0; j < 32; ++j) {
            const int q = draw(0, 15);
            b.qs[j % 16] = static_cast<uint8_t>(b.qs[j % 16] + (j < 16 ? q : q * 16));
            expected.push_back(q * d + m);
        }
    }
    expect_row(WeightType::Q4_1, blocks, expected);
}

// Packs element j's 5-bit code into zero-initialized qs and qh.
void put_q5(uint8_t* qh, uint8_t* qs, int j, int q) {
    uint32_t high;
    std::memcpy(&high, qh, 4);
    high += static_cast<uint32_t>(q / 16) << j;
    std::memcpy(qh, &high, 4);
    qs[j % 16] = static_cast<uint8_t>(qs[j % 16] + (j < 16 ? q % 16 : q % 16 * 16));
}

TEST_F(Blocks, Q5_0) {
    std::vector<BlockQ5_0> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ5_0& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d;
        b.d = draw_half(d);
        for (int j = 0; j < 32; ++j) {
            const int q = draw(0, 31);
            put_q5(b.qh, b.qs, j, q);
            expected.push_back((q - 16) * d);
        }
    }
    expect_row(WeightType::Q5_0, blocks, expected);
}

TEST_F(Blocks, Q5_1) {
    std::vector<BlockQ5_1> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ5_1& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d, m;
        b.d = draw_half(d);
        b.m = draw_half(m);
        for (int j = 0; j < 32; ++j) {
            const int q = draw(0, 31);
            put_q5(b.qh, b.qs, j, q);
            expected.push_back(q * d + m);
        }
    }
    expect_row(WeightType::Q5_1, blocks, expected);
}

TEST_F(Blocks, Q4_K) {
    std::vector<BlockQ4_K> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ4_K& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d, dmin;
        b.d = draw_half(d);
        b.dmin = draw_half(dmin);
        int sc[8], m[8];
        draw_pairs(b.scales, sc, m);
        for (int i = 0; i < 256; ++i) {
            const int q = draw(0, 15);
            const int byte = i / 64 * 32 + i % 32;
            b.qs[byte] = static_cast<uint8_t>(b.qs[byte] + (i % 64 < 32 ? q : q * 16));
            expected.push_back(d * sc[i / 32] * q - dmin * m[i / 32]);
        }
        for (int j = 0; j < 8; ++j) {
            uint8_t actual_sc, actual_m;
            get_scale_min_k4(j, b.scales, actual_sc, actual_m);
            ASSERT_EQ(actual_sc, sc[j]) << j;
            ASSERT_EQ(actual_m, m[j]) << j;
        }
    }
    expect_row(WeightType::Q4_K, blocks, expected);
}

// Packs element i's two bits into zero-initialized qs.
void put_q2(uint8_t* qs, int i, int q) {
    uint8_t& byte = qs[i / 128 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte + (q << (i % 128 / 32 * 2)));
}

TEST_F(Blocks, Q2_K) {
    std::vector<BlockQ2_K> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ2_K& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d, dmin;
        b.d = draw_half(d);
        b.dmin = draw_half(dmin);
        int sc[16], m[16];
        for (int j = 0; j < 16; ++j) {
            sc[j] = draw(0, 15);
            m[j] = draw(0, 15);
            b.scales[j] = static_cast<uint8_t>(sc[j] + 16 * m[j]);
        }
        for (int i = 0; i < 256; ++i) {
            const int q = draw(0, 3);
            put_q2(b.qs, i, q);
            expected.push_back(d * sc[i / 16] * q - dmin * m[i / 16]);
        }
    }
    expect_row(WeightType::Q2_K, blocks, expected);
}

TEST_F(Blocks, Q3_K) {
    std::vector<BlockQ3_K> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ3_K& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d;
        b.d = draw_half(d);
        int sc[16];
        for (int j = 0; j < 16; ++j) {
            sc[j] = draw(0, 63);  // scale + 32
            b.scales[j % 8] = static_cast<uint8_t>(b.scales[j % 8] + (j < 8 ? sc[j] % 16 : sc[j] % 16 * 16));
            b.scales[8 + j % 4] = static_cast<uint8_t>(b.scales[8 + j % 4] + (sc[j] / 16 << (j / 4 * 2)));
        }
        for (int i = 0; i < 256; ++i) {
            const int q = draw(-4, 3);
            put_q2(b.qs, i, (q + 4) % 4);
            b.hmask[i % 32] = static_cast<uint8_t>(b.hmask[i % 32] + ((q >= 0 ? 1 : 0) << (i / 32)));
            expected.push_back(d * (sc[i / 16] - 32) * q);
        }
    }
    expect_row(WeightType::Q3_K, blocks, expected);
}

TEST_F(Blocks, Q5_K) {
    std::vector<BlockQ5_K> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ5_K& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d, dmin;
        b.d = draw_half(d);
        b.dmin = draw_half(dmin);
        int sc[8], m[8];
        draw_pairs(b.scales, sc, m);
        for (int i = 0; i < 256; ++i) {
            const int q = draw(0, 31);
            const int byte = i / 64 * 32 + i % 32;
            b.qs[byte] = static_cast<uint8_t>(b.qs[byte] + (i % 64 < 32 ? q % 16 : q % 16 * 16));
            b.qh[i % 32] = static_cast<uint8_t>(b.qh[i % 32] + (q / 16 << (i / 32)));
            expected.push_back(d * sc[i / 32] * q - dmin * m[i / 32]);
        }
    }
    expect_row(WeightType::Q5_K, blocks, expected);
}

TEST_F(Blocks, BF16) {
    std::vector<uint16_t> values(257);
    std::vector<double> expected;
    for (uint16_t& v : values) {
        const int mantissa = draw(128, 255);
        const int exponent = draw(-60, 60);
        const bool negative = draw(0, 1) == 1;
        v = static_cast<uint16_t>((negative ? 0x8000 : 0) | (exponent + 127) << 7 | (mantissa - 128));
        expected.push_back(std::ldexp(negative ? -mantissa : mantissa, exponent - 7));
    }
    expect_row(WeightType::BF16, values, expected);
}

TEST_F(Blocks, Q6_K) {
    std::vector<BlockQ6_K> blocks(kBlocks);
    std::vector<double> expected;
    for (BlockQ6_K& b : blocks) {
        std::memset(&b, 0, sizeof(b));
        double d;
        b.d = draw_half(d);
        for (int8_t& scale : b.scales) {
            scale = static_cast<int8_t>(draw(-128, 127));
        }
        int q[256];
        for (int i = 0; i < 256; ++i) {
            q[i] = draw(0, 63);
            expected.push_back(d * b.scales[i / 16] * (q[i] - 32));
        }
        for (int n = 0; n < 2; ++n) {
            for (int l = 0; l < 32; ++l) {
                const int* e = q + n * 128 + l;  // e[0], e[32], e[64] and e[96] share byte l of qh
                b.ql[n * 64 + l] = static_cast<uint8_t>(e[0] % 16 + e[64] % 16 * 16);
                b.ql[n * 64 + l + 32] = static_cast<uint8_t>(e[32] % 16 + e[96] % 16 * 16);
                b.qh[n * 32 + l] = static_cast<uint8_t>(e[0] / 16 + e[32] / 16 * 4 + e[64] / 16 * 16 + e[96] / 16 * 64);
            }
        }
    }
    expect_row(WeightType::Q6_K, blocks, expected);
}

TEST_F(Blocks, F16) {
    std::vector<half_t> halves(257);
    std::vector<double> expected;
    for (half_t& h : halves) {
        double value;
        h = draw_half(value);
        expected.push_back(value);
    }
    expect_row(WeightType::F16, halves, expected);
}

TEST_F(Blocks, F32) {
    std::vector<float> floats(257);
    std::vector<double> expected;
    for (float& f : floats) {
        f = std::ldexp(static_cast<float>(draw(-1 << 23, 1 << 23)), draw(-30, 30));
        expected.push_back(static_cast<double>(f));
    }
    expect_row(WeightType::F32, floats, expected);
}

TEST(BlocksTable, EmptyRowTouchesNothing) {
    for (const WeightType type : {WeightType::F32, WeightType::F16, WeightType::Q8_0, WeightType::Q4_K}) {
        dequantize_row(type, nullptr, nullptr, 0);
    }
}

TEST(BlocksTable, TraitsOfEveryType) {
    struct Row {
        uint32_t number;
        const char* name;
        uint32_t elements, bytes;
    };
    const Row rows[] = {{0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},
                        {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},    {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},
                        {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210},
                        {30, "BF16", 1, 2}};
    uint32_t next = 0;
    for (const Row& row : rows) {
        for (; next < row.number; ++next) {
            EXPECT_EQ(weight_type_traits(next), nullptr) << next;
        }
        const WeightTypeTraits* traits = weight_type_traits(row.number);
        ASSERT_NE(traits, nullptr) << row.name;
        EXPECT_STREQ(traits->name, row.name);
        EXPECT_EQ(traits->block_elements, row.elements) << row.name;
        EXPECT_EQ(traits->block_bytes, row.bytes) << row.name;
        next = row.number + 1;
    }
    for (const uint32_t number : {31u, 100u, 0x80000000u, 0xFFFFFFFFu}) {
        EXPECT_EQ(weight_type_traits(number), nullptr) << number;
    }
}

TEST(BlocksTable, NumbersThatAreNoTypeAreRefused) {
    for (const uint32_t number : {4u, 9u, 15u, 31u, 0xFFFFFFFFu}) {
        uint8_t block[256] = {};
        float out[256];
        try {
            dequantize_row(static_cast<WeightType>(number), block, out, 256);
            FAIL() << number;
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), LK_UNSUPPORTED);
            EXPECT_NE(std::string(e.what()).find(std::to_string(number)), std::string::npos) << e.what();
        }
    }
}

// The value of a half, by definition.
double half_value(uint32_t h) {
    const int exponent = static_cast<int>(h >> 10 & 31);
    const double mantissa = h & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                             : exponent == 31 ? std::numeric_limits<double>::infinity()
                                              : std::ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

bool is_nan_half(uint32_t h) {
    return (h & 0x7C00) == 0x7C00 && (h & 0x3FF) != 0;
}

TEST(Half, EveryValueConvertsExactlyAndBack) {
    for (uint32_t h = 0; h < 65536; ++h) {
        const float f = half_to_float(static_cast<half_t>(h));
        if (is_nan_half(h)) {
            ASSERT_TRUE(std::isnan(f)) << h;
            ASSERT_TRUE(is_nan_half(float_to_half(f))) << h;
            continue;
        }
        ASSERT_EQ(static_cast<double>(f), half_value(h)) << h;
        ASSERT_EQ(std::signbit(f), (h & 0x8000) != 0) << h;
        ASSERT_EQ(float_to_half(f), h);
    }
}

TEST(Half, RowsConvertAsSingleValues) {
    std::vector<half_t> halves(65536);
    std::iota(halves.begin(), halves.end(), half_t{0});
    std::vector<float> row(halves.size());
    dequantize_row(WeightType::F16, halves.data(), row.data(), static_cast<int64_t>(row.size()));
    for (const half_t h : halves) {
        ASSERT_EQ(bits_as<uint32_t>(row[h]), bits_as<uint32_t>(half_to_float(h))) << h;
    }
}

TEST(Half, RoundsToNearestTiesToEven) {
    for (uint32_t h = 0; h < 0x7C00; ++h) {  // every finite positive half; the value above the largest is 2^16
        const double low = half_value(h);
        const double high = h + 1 == 0x7C00 ? 65536.0 : half_value(h + 1);
        const float middle = static_cast<float>((low + high) / 2);  // exact in float
        const half_t even = static_cast<half_t>(h % 2 == 0 ? h : h + 1);
        const half_t sign = 0x8000;
        ASSERT_EQ(float_to_half(middle), even) << h;
        ASSERT_EQ(float_to_half(-middle), even | sign) << h;
        ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), h) << h;
        ASSERT_EQ(float_to_half(std::nextafter(middle, 1e30f)), h + 1) << h;
    }
}

TEST(Half, BeyondTheRange) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(float_to_half(65519.996f), 0x7BFF);
    EXPECT_EQ(float_to_half(65520.0f), 0x7C00);
    EXPECT_EQ(float_to_half(std::numeric_limits<float>::max()), 0x7C00);
    EXPECT_EQ(float_to_half(infinity), 0x7C00);
    EXPECT_EQ(float_to_half(-infinity), 0xFC00);
    EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0);
    EXPECT_EQ(float_to_half(-std::numeric_limits<float>::denorm_min()), 0x8000);
}

}  // namespace
}  // namespace lk
