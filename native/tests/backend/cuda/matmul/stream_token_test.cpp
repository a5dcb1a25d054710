// The token of multiply_stream on the host: copied, quantized and normalized, without a GPU.
#include <gtest/gtest.h>

#include "support/lane_fibers.h"
#include "support/stream_token.h"
#include "support/weight_rows.h"

namespace lk::cuda {
namespace {

using test::Bytes;
using test::Fours;
using test::kStreamTypes;
using test::Token;

class StreamTokenTest : public testing::Test, protected test::NormalValues {
protected:
    StreamTokenTest() : NormalValues(7) {}
};

// Codes made by the kernel lie where codes that are copied do.
TEST_F(StreamTokenTest, QuantizedTokensAreCopiedCodes) {
#if defined(__linux__)
    for (const WeightType type : kStreamTypes) {
        dispatch("test", type, [&](auto t) {
            constexpr WeightType kType = decltype(t)::value;
            if constexpr (stream_piece(kType) > 0 && !is_float(kType)) {
                for (const int n_cols : {256, 4096, 11008}) {
                    std::vector<float> x = draw(n_cols);
                    Token copied(kType, x);
                    Bytes row(4 * x.size());
                    std::memcpy(row.data(), x.data(), row.size());
                    Bytes shared(copied.shared.size());
                    const SharedBytes to(shared.data());
                    constexpr int kThreads = StreamStep::kWarps * 32;
                    int n_reports = 0;
                    const auto quantize = [&](const auto& lanes) {
                        quantize_token<kType, kThreads>(
                            lanes, n_cols, PlainToken{reinterpret_cast<const Floats4*>(row.data())}, to,
                            to + StreamActivations::blocks_offset(kType, n_cols), [&n_reports] { ++n_reports; });
                    };
                    test::LaneFibers::run(kThreads, quantize);
                    EXPECT_TRUE(std::equal(shared.data(), shared.data() + shared.size(), copied.shared.data()))
                        << weight_type_traits(kType)->name << ", " << n_cols;
                    EXPECT_EQ(n_reports, 0);
                    x[n_cols - 1] = HUGE_VALF;
                    std::memcpy(row.data(), x.data(), row.size());
                    test::LaneFibers::run(kThreads, quantize);
                    EXPECT_EQ(n_reports, 1);
                }
            }
        });
    }
#else
    GTEST_SKIP() << "fibers need Linux";
#endif
}

// A norm that the kernel evaluates has the values of an evaluated one.
TEST_F(StreamTokenTest, NormedTokensAreLikePlainOnes) {
    constexpr int kThreads = StreamStep::kWarps * 32;
    for (const int n_cols : {256, 4096, 11008}) {
        const std::vector<float> x = draw(n_cols);
        const std::vector<float> w = draw(n_cols);
        constexpr float kScale = 0.7f;
        std::vector<float> normed(n_cols);
        for (int i = 0; i < n_cols; ++i) {
            normed[i] = x[i] * kScale * w[i];
        }
        const Fours four_x(x);
        const Fours four_w(w);
        const Token token(WeightType::F16, normed);
        Bytes shared(token.shared.size());
        for (int thread = 0; thread < kThreads; ++thread) {
            load_floats<WeightType::F16, kThreads>(thread, n_cols, NormedToken{four_x.data(), four_w.data(), kScale},
                                                   SharedBytes(shared.data()),
                                                   [] { ADD_FAILURE() << "finite values are reported"; });
        }
        EXPECT_EQ(std::memcmp(shared.data(), token.shared.data(), shared.size()), 0) << n_cols;
    }
    std::vector<float> x = draw(64);
    x[61] = std::nanf("");
    Bytes shared(StreamActivations::bytes(WeightType::F16, 64));
    int n_reports = 0;
    for (int thread = 0; thread < kThreads; ++thread) {
        load_floats<WeightType::F16, kThreads>(thread, 64, PlainToken{Fours(x).data()}, SharedBytes(shared.data()),
                                               [&n_reports] { ++n_reports; });
    }
    EXPECT_EQ(n_reports, 1);
}

}  // namespace
}  // namespace lk::cuda
