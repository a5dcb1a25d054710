// Byte scales: eight bits for the scale of a group.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "kv/codec/scalar_codec.h"

namespace lk::kv {
namespace {

TEST(ByteScale, DecodesEveryByte) {
    for (int byte = 0; byte < 256; ++byte) {
        const int e = byte / 16;
        const int m = byte % 16;
        const double value = e == 0 ? std::ldexp(m, -18) : std::ldexp(16 + m, e - 19);
        for (const int k : {-9, 0, 5}) {
            ASSERT_EQ(byte_scale_decode(static_cast<uint8_t>(byte), k), std::ldexp(value, k)) << byte;
        }
    }
}

TEST(ByteScale, RoundsAgainstTheTableOfItsValues) {
    for (const int k : {-7, 0, 4}) {
        std::vector<double> table(256);
        for (int i = 0; i < 256; ++i) {
            table[i] = byte_scale_decode(static_cast<uint8_t>(i), k);
        }
        std::vector<float> samples{0.0f, -1.0f, 1e-30f, static_cast<float>(table[255] * 1.01)};
        for (int i = 0; i < 255; ++i) {
            const float low = static_cast<float>(table[i]);
            const float high = static_cast<float>(table[i + 1]);
            for (int j = 0; j <= 16; ++j) {  // includes both values and the tie between them
                const float x = low + (high - low) * static_cast<float>(j) / 16;
                samples.insert(samples.end(), {x, x * 1.0000002f, x * 0.9999998f});
            }
        }
        EXPECT_EQ(byte_scale_round_up(1e30f, k), 255);
        EXPECT_EQ(byte_scale_round_nearest(1e30f, k), 255);
        for (const float s : samples) {
            const auto least = std::lower_bound(table.begin(), table.end(), static_cast<double>(s)) - table.begin();
            ASSERT_EQ(byte_scale_round_up(s, k), s <= 0 ? 0 : std::min<long>(least, 255)) << s << " k " << k;
            const int nearest = byte_scale_round_nearest(s, k);
            const double error = std::fabs(table[nearest] - std::max(s, 0.0f));
            for (const int other : {nearest - 1, nearest + 1}) {
                if (other >= 0 && other < 256) {
                    const double its = std::fabs(table[other] - std::max(s, 0.0f));
                    ASSERT_TRUE(error < its || (error == its && nearest % 2 == 0)) << s << " k " << k;
                }
            }
        }
    }
}

TEST(ByteScale, ExponentLeavesThreeBinades) {
    EXPECT_EQ(byte_scale_exponent(0), 0);
    for (float s = 1e-6f; s < 1e5f; s *= 1.07f) {
        const int k = byte_scale_exponent(s);
        ASSERT_LE(8 * s, byte_scale_decode(255, k)) << s;
        ASSERT_GT(8 * s, byte_scale_decode(255, k - 1)) << s;  // k is not larger than needed
    }
}

}  // namespace
}  // namespace lk::kv
