// Kernels over the codes of quantized pages, of every table: unpacking, integer dot products and their scales.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kv/codec/quantizer.h"
#include "kv/codec/scalar_codec.h"
#include "support/kernel_tables.h"
#include "support/kv_helpers.h"

namespace lk {

using namespace kv;

namespace {

using cpu::Kernels;
using test::KernelTables;

TEST_F(KernelTables, UnpackCodes) {
    struct Row {
        int bits, unit_bytes;  // key tiles of 16 and 32 tokens, value blocks
    };
    for (const Row& row : {Row{2, 16}, Row{2, 32}, Row{4, 32}, Row{4, 64}, Row{3, 48}}) {
        const int n_codes = row.unit_bytes * 8 / row.bits;
        const std::vector<uint8_t> packed = draw_bytes(7 * row.unit_bytes);
        for (const int piece_stride : {32, 32 * 7}) {  // keys; values (pieces are rows of a matrix)
            const int unit_stride = piece_stride == 32 ? n_codes : 32;
            for (const Kernels* kernels : test::kernel_tables()) {
                std::vector<uint8_t> out(7 * n_codes, 99);
                kernels->unpack_codes(packed.data(), 7, row.unit_bytes, row.bits, out.data(), unit_stride,
                                      piece_stride);
                for (int i = 0; i < 7 * n_codes; ++i) {
                    const int unit = i / n_codes;
                    const int code = i % n_codes;
                    const int plane_bits = row.bits == 3 ? 2 : row.bits;
                    const int plane_bytes = n_codes * plane_bits / 8;
                    const CodePlace at{static_cast<size_t>(unit * row.unit_bytes + code % plane_bytes),
                                       plane_bits * (code / plane_bytes)};
                    int expected = get_code(packed.data(), at, plane_bits);
                    if (row.bits == 3) {
                        const CodePlace high{static_cast<size_t>(unit * row.unit_bytes + 32 + code % 16), code / 16};
                        expected += 4 * get_code(packed.data(), high, 1);
                    }
                    ASSERT_EQ(out[unit * unit_stride + code / 32 * piece_stride + code % 32], expected)
                        << kernels->name << ", " << row.bits << " bits, code " << i;
                }
            }
        }
    }
}

TEST_F(KernelTables, Fold) {
    constexpr float kMiddle = 1.5f;
    for (const int n : {16, 32, 80, 112, 320}) {
        const int n_rows = n % 7 + 1;
        const int stride = n + 5;
        std::vector<float> a = draw(n_rows * stride);
        std::fill_n(a.begin(), n, 0.0f);  // a row of zeros
        const std::vector<float> scale = draw(n);
        const std::vector<float> zero = draw(n);
        for (const Kernels* kernels : test::kernel_tables()) {
            std::vector<int8_t> w(n_rows * n, 5);
            std::vector<float> step(n_rows);
            std::vector<float> bias(n_rows);
            kernels->fold(a.data(), stride, n_rows, scale.data(), zero.data(), kMiddle, n, w.data(), step.data(),
                          bias.data());
            EXPECT_EQ(step[0], 0);
            EXPECT_EQ(bias[0], 0);
            EXPECT_EQ(std::count(w.begin(), w.begin() + n, 0), n);
            for (int r = 1; r < n_rows; ++r) {
                float largest = 0;
                double expected = 0;
                for (int i = 0; i < n; ++i) {
                    const float x = a[r * stride + i] * scale[i];
                    largest = std::max(largest, std::fabs(x));
                    ASSERT_LE(std::fabs(x - step[r] * w[r * n + i]), 0.501f * step[r]) << kernels->name;
                    expected += static_cast<double>(a[r * stride + i]) * zero[i] +
                                kMiddle * (static_cast<double>(x) - static_cast<double>(step[r]) * w[r * n + i]);
                }
                EXPECT_FLOAT_EQ(step[r], largest / 127);
                EXPECT_NEAR(bias[r], expected, 1e-6 * n) << kernels->name;
            }
        }
    }
}

TEST_F(KernelTables, DotCodes) {
    for (const int n : {16, 80, 320}) {
        for (const int n_rows : {1, 2, 3, 4, 7}) {
            const int w_stride = n + 16;
            const std::vector<uint8_t> weights = draw_bytes(static_cast<size_t>(n_rows) * w_stride, 255);
            std::vector<int8_t> w(weights.size());
            std::transform(weights.begin(), weights.end(), w.begin(),
                           [](uint8_t x) { return static_cast<int8_t>(x - 127); });
            const std::vector<float> step = draw(n_rows);
            const std::vector<float> bias = draw(n_rows);
            for (const int lanes : {8, 16, 24, 32, 56, 80, 128}) {
                const int stride = 4 * lanes + 32;
                const int out_stride = lanes + 3;
                const std::vector<uint8_t> codes = draw_bytes(static_cast<size_t>(n / 4) * stride, 16);
                const std::vector<float> before = draw(n_rows * out_stride);
                for (const Kernels* kernels : test::kernel_tables()) {
                    std::vector<float> out = before;
                    kernels->dot_codes(codes.data(), stride, n / 4, lanes, w.data(), w_stride, step.data(), bias.data(),
                                       n_rows, out.data(), out_stride);
                    for (int i = 0; i < n_rows * out_stride; ++i) {
                        const int r = i / out_stride;
                        const int lane = i % out_stride;
                        double value = before[i];
                        double sum = 0;
                        for (int j = 0; j < n && lane < lanes; ++j) {
                            sum += codes[j / 4 * stride + 4 * lane + j % 4] * w[r * w_stride + j];
                        }
                        value += lane < lanes ? bias[r] + step[r] * sum : 0;
                        ASSERT_NEAR(out[i], value, 1e-6 * (2 + std::fabs(value) + std::fabs(step[r] * sum)))
                            << kernels->name;
                    }
                }
            }
        }
    }
}

// The kernels over packed codes give the bits of unpacked codes, also for sums that reach the limits of 16 bits.
TEST_F(KernelTables, ScorePacked) {
    for (const int bits : {2, 4}) {
        for (const int tokens : {16, 32}) {
            for (const int n_quads : {1, 4, 20, 43, 44, 128}) {
                for (const bool extreme : {false, true}) {
                    const int unit_bytes = tokens * bits / 2;
                    std::vector<uint8_t> packed = draw_bytes(static_cast<size_t>(n_quads) * unit_bytes);
                    constexpr int kMostRows = 13;
                    const int width = 4 * n_quads + 16;
                    std::vector<int8_t> w(kMostRows * width);
                    std::generate(w.begin(), w.end(), [&] { return static_cast<int8_t>(draw_bytes(1, 255)[0] - 127); });
                    if (extreme) {
                        std::fill(packed.begin(), packed.end(), uint8_t{255});
                        std::fill(w.begin(), w.end(), int8_t{127});
                        std::fill_n(w.begin(), width, int8_t{-127});
                    }
                    const std::vector<float> step = draw(kMostRows);
                    const std::vector<float> bias = draw(kMostRows);
                    const int ld = tokens + 5;
                    for (const Kernels* kernels : test::kernel_tables()) {
                        std::vector<uint8_t> codes(static_cast<size_t>(n_quads) * 4 * tokens);
                        kernels->unpack_codes(packed.data(), n_quads, unit_bytes, bits, codes.data(), 4 * tokens, 32);
                        std::vector<float> expected(kMostRows * ld);
                        kernels->dot_codes(codes.data(), 4 * tokens, n_quads, tokens, w.data(), width, step.data(),
                                           bias.data(), kMostRows, expected.data(), ld);
                        for (int n_rows = 1; n_rows <= kMostRows; ++n_rows) {
                            std::vector<float> scores(n_rows * ld);
                            kernels->score_packed(packed.data(), n_quads, tokens, bits, w.data(), width, step.data(),
                                                  bias.data(), n_rows, scores.data(), ld);
                            ASSERT_TRUE(std::equal(scores.begin(), scores.end(), expected.begin()))
                                << kernels->name << ", " << bits << " bits, " << tokens << " tokens, " << n_quads
                                << " quads, " << n_rows << " rows";
                        }
                    }
                }
            }
        }
    }
}

TEST_F(KernelTables, AccumulatePacked) {
    for (const int bits : {2, 3, 4}) {
        for (const int n_blocks : {1, 2, 5, 8, 32}) {
            for (const bool extreme : {false, true}) {
                constexpr int kMostRows = 13;
                constexpr int kWidth = 48;
                const int block_bytes = kv::kValueBlockTokens * kv::kValueBlockChannels * bits / 8;
                const int unit_bytes = (n_blocks + 3) * block_bytes;  // blocks of other channels follow
                std::vector<uint8_t> packed = draw_bytes(2 * unit_bytes);
                std::vector<int8_t> w(kMostRows * kWidth);
                std::generate(w.begin(), w.end(), [&] { return static_cast<int8_t>(draw_bytes(1, 255)[0] - 127); });
                if (extreme) {
                    std::fill(packed.begin(), packed.end(), uint8_t{255});
                    std::fill(w.begin(), w.end(), int8_t{127});
                    std::fill_n(w.begin(), kWidth, int8_t{-127});
                }
                const std::vector<float> step = draw(kMostRows);
                const std::vector<float> bias = draw(kMostRows);
                const int channels = n_blocks * kv::kValueBlockChannels;
                const int stride = channels + 3;
                const std::vector<float> before = draw(kMostRows * stride);
                for (const int n_units : {1, 2}) {
                    for (const Kernels* kernels : test::kernel_tables()) {
                        std::vector<uint8_t> codes(n_units * kv::kValueBlockTokens * channels);
                        for (int i = 0; i < n_units; ++i) {
                            kernels->unpack_codes(packed.data() + i * unit_bytes, n_blocks, block_bytes, bits,
                                                  codes.data() + i * kv::kValueBlockTokens * channels, 32,
                                                  4 * channels);
                        }
                        std::vector<float> expected = before;
                        kernels->dot_codes(codes.data(), 4 * channels, 4 * n_units, channels, w.data(), kWidth,
                                           step.data(), bias.data(), kMostRows, expected.data(), stride);
                        for (int n_rows = 1; n_rows <= kMostRows; ++n_rows) {
                            std::vector<float> sums = before;
                            kernels->accumulate_packed(packed.data(), unit_bytes, n_units, n_blocks, bits, w.data(),
                                                       kWidth, step.data(), bias.data(), n_rows, sums.data(), stride);
                            const auto changed = static_cast<ptrdiff_t>(n_rows) * stride;
                            ASSERT_TRUE(std::equal(sums.begin(), sums.begin() + changed, expected.begin()) &&
                                        std::equal(sums.begin() + changed, sums.end(), before.begin() + changed))
                                << kernels->name << ", " << bits << " bits, " << n_blocks << " blocks, " << n_units
                                << " units, " << n_rows << " rows";
                        }
                    }
                }
            }
        }
    }
}

TEST_F(KernelTables, SquareSum) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    for (const int n : {16, 96, 112, 512}) {
        std::vector<float> a(n);
        std::vector<float> b(n);
        double expected = 0;
        for (int i = 0; i < n; ++i) {
            a[i] = normal(random);
            b[i] = i % 5 == 0 ? 0.0f : std::fabs(normal(random));
            expected += std::pow(static_cast<double>(a[i]) * b[i], 2);
        }
        for (const Kernels* kernels : test::kernel_tables()) {
            EXPECT_NEAR(kernels->square_sum(a.data(), b.data(), n), expected, 1e-5 * expected) << kernels->name;
        }
    }
}

TEST_F(KernelTables, DecodeByteScales) {
    std::vector<uint8_t> bytes(256);
    for (int i = 0; i < 256; ++i) {
        bytes[i] = static_cast<uint8_t>(i);
    }
    for (const Kernels* kernels : test::kernel_tables()) {
        for (const int k : {-9, 0, 6}) {
            std::vector<float> s(256);
            kernels->decode_byte_scales(bytes.data(), 256, std::ldexp(1.0f, k), s.data());
            for (int i = 0; i < 256; ++i) {
                ASSERT_EQ(s[i], byte_scale_decode(bytes[i], k)) << kernels->name << " " << i;
            }
        }
    }
}

}  // namespace
}  // namespace lk
