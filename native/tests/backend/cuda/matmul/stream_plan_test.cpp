// multiply_stream on the host: the kernel's work distribution, copies and lane pieces, without a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>

#include "backend/cuda/matmul/stream_pieces.h"
#include "backend/cuda/plan/weight_dispatch.h"
#include "base/error.h"
#include "support/lane_fibers.h"
#include "support/stream_token.h"
#include "support/weight_rows.h"

namespace lk::cuda {
namespace {

using test::Bytes;
using test::kStreamTypes;
using test::Token;

constexpr Processors kH200{132, 232448};

// Asynchronous copies of a warp: nothing arrives before the wait for its group.
class Copies {
public:
    void add(uint8_t* to, const uint8_t* from) {
        pending_.back().push_back([=] { std::memcpy(to, from, 16); });
    }
    void commit() { pending_.emplace_back(); }
    // Waits for all groups but the last n.
    void wait(size_t n) {
        while (pending_.size() > n + 1) {  // the last one is open
            for (const auto& copy : pending_.front()) {
                copy();
            }
            pending_.pop_front();
        }
    }

private:
    std::deque<std::vector<std::function<void()>>> pending_{1};
};

// What the kernel does, a warp after the other.
template <WeightType kType>
void multiply(const FewProducts& products, const StreamPlan& plan, size_t row_bytes, int n_cols, Token& token,
              const std::function<void(const uint8_t*)>& check) {
    using Piece = StreamPiece<kType>;
    constexpr StreamStep kStep = StreamStep::of(kType);
    constexpr int kRows = StreamStep::kRows;
    const SharedBytes x(token.shared.data());
    const SharedBytes blocks = x + StreamActivations::blocks_offset(kType, n_cols);
    const int n_pieces = n_cols / stream_piece(kType);
    for (int block = 0; block < plan.n_blocks; ++block) {
        float partial[StreamStep::kWarps][kRows];
        std::fill_n(partial[0], StreamStep::kWarps * kRows, std::nanf(""));
        std::deque<std::function<void()>> after;  // what the warps do when all of them are done
        for (int warp = 0; warp < StreamStep::kWarps; ++warp) {
            Bytes ring(kStep.warp_bytes());
            Copies pending;
            std::vector<StreamCursor<kType>> at;
            std::vector<StreamCopies<kType>> copies;
            for (int lane = 0; lane < 32; ++lane) {
                at.emplace_back(products, plan, block, warp, lane);
                copies.emplace_back(at[lane], static_cast<unsigned>(row_bytes));
            }
            int left = plan.steps(block, warp);
            const auto fetch = [&](bool more, uint8_t* stage) {
                for (int lane = 0; lane < 32; ++lane) {
                    uint8_t* const first = stage + copies[lane].stage_offset();
                    copies[lane].for_each(more, [&](bool wanted, int to, const uint8_t* from) {
                        if (wanted) {
                            check(from);
                            ASSERT_LE(first + to + 16, stage + kStep.stage_bytes());
                            pending.add(first + to, from);
                        }
                    });
                    if (kStep.align < 16 && lane % 16 == 0) {
                        SharedBytes(first).write(kStep.start_offset(), copies[lane].start());
                    }
                    copies[lane].next_step();
                }
                pending.commit();
            };
            for (int s = 0; s < kStep.stages; ++s) {
                fetch(left > s, ring.data() + s * kStep.stage_bytes());
            }
            const auto store = [&products](const StreamCursor<kType>& cursor, float total) {
                cursor.store([&](int which, int row) {
                    EXPECT_TRUE(std::isnan(products.y[which][row])) << "written twice";
                    products.y[which][row] = total;
                });
            };
            float sums[32][kRows] = {};
            const auto total_of = [&sums](int r) {
                float total = 0;
                for (const auto& sum : sums) {
                    total += sum[r];
                }
                return total;
            };
            bool begun = at[0].step() == 0;
            for (int stage = 0; left > 0; --left, stage = (stage + 1) % kStep.stages) {
                uint8_t* const from = ring.data() + stage * kStep.stage_bytes();
                pending.wait(kStep.stages - 1);
                StreamRows rows;
                for (int r = 0; r < kRows; ++r) {
                    rows.at[r] = SharedBytes(from) + r * kStep.pitch;
                    if (kStep.align < 16) {
                        rows.at[r] = rows.at[r] + rows.at[r].read<int>(kStep.start_offset());
                    }
                }
                for (int lane = 0; lane < 32; ++lane) {
                    const int step = at[lane].step();
                    const StreamX activations{x + step * StreamActivations::step_bytes(kType) + lane * 16,
                                              blocks + step * StreamActivations::step_block_bytes(kType) +
                                                  lane * StreamActivations::lane_block_bytes(kType)};
                    Piece::add(rows, activations, lane, step * 32 + lane < n_pieces, sums[lane]);
                }
                std::fill_n(from, kStep.stage_bytes(), uint8_t{0xff});
                fetch(left > kStep.stages, from);
                for (auto& lane_at : at) {
                    lane_at.next_step();
                }
                if (at[0].passed_pair()) {
                    for (int r = 0; r < kRows; ++r) {
                        if (begun) {
                            store(at[16 * r], total_of(r));
                        } else {
                            EXPECT_TRUE(std::isnan(partial[warp][r])) << "written twice";
                            partial[warp][r] = total_of(r);
                        }
                    }
                    begun = true;
                    std::fill_n(sums[0], 32 * kRows, 0.0f);
                    for (auto& lane_at : at) {
                        lane_at.next_pair();
                    }
                }
            }
            if (at[0].step() != 0) {
                for (int r = 0; r < kRows; ++r) {
                    const float total = total_of(r);
                    if (!begun) {
                        EXPECT_TRUE(std::isnan(partial[warp][r])) << "written twice";
                        partial[warp][r] = total;
                        continue;
                    }
                    after.push_back([=, &plan, &partial, cursor = at[16 * r]] {
                        float all = total;
                        plan.for_each_follower(block, warp, [&](int other) { all += partial[other][r]; });
                        store(cursor, all);
                    });
                }
            }
        }
        for (const auto& finish : after) {
            finish();
        }
    }
}

class StreamPlanTest : public testing::Test, protected test::NormalValues {
protected:
    StreamPlanTest() : NormalValues(7) {}
};

// Two matrices of one launch, with an odd number of rows and rows that start at any even address.
TEST_F(StreamPlanTest, EveryWeightMeetsItsActivation) {
    constexpr int kMatrixRows[] = {37, 64};
    for (const WeightType type : kStreamTypes) {
        const WeightTypeTraits& traits = *weight_type_traits(type);
        for (const int n_cols : {256, 2304, 4096, 11008, is_float(type) ? 72 : 768}) {
            for (const int n_processors : {1, 5, 132}) {
                SCOPED_TRACE(format("%s, %d columns, %d processors", traits.name, n_cols, n_processors));
                const size_t row_bytes = static_cast<size_t>(n_cols) / traits.block_elements * traits.block_bytes;
                Token token(type, draw(n_cols));
                std::deque<Bytes> weights;
                std::vector<std::vector<float>> y;
                FewProducts products{};
                for (const int n_rows : kMatrixRows) {
                    const std::vector<uint8_t> drawn = test::draw_weights(type, int64_t{n_rows} * n_cols, random_);
                    weights.emplace_back(drawn.size() + 16);  // the padding of WeightMap
                    std::copy(drawn.begin(), drawn.end(), weights.back().data());
                    y.emplace_back(n_rows, std::nanf(""));
                    products.w[products.count] = weights.back().data();
                    products.n_rows[products.count++] = n_rows;
                }
                for (int i = 0; i < products.count; ++i) {
                    products.y[i] = y[i].data();
                }
                const StreamPlan plan = StreamPlan::of(type, products, n_cols, n_processors);
                const auto check = [&](const uint8_t* from) {
                    bool within = false;
                    for (Bytes& w : weights) {
                        within = within || (from >= w.data() && from + 16 <= w.data() + w.size());
                    }
                    ASSERT_TRUE(within) << "copies from outside the weights";
                };
                dispatch("test", type, [&](auto t) {
                    if constexpr (stream_piece(decltype(t)::value) > 0) {
                        multiply<decltype(t)::value>(products, plan, row_bytes, n_cols, token, check);
                    }
                });
                std::vector<float> row(n_cols);
                for (int i = 0; i < products.count; ++i) {
                    for (int r = 0; r < products.n_rows[i]; ++r) {
                        dequantize_row(type, products.w[i] + r * row_bytes, row.data(), n_cols);
                        double expected = 0;
                        double norm = 0;
                        for (int k = 0; k < n_cols; ++k) {
                            expected += double{row[k]} * token.values[k];
                            norm += std::fabs(double{row[k]} * token.values[k]);
                        }
                        ASSERT_NEAR(y[i][r], expected, 2e-6 * norm) << "matrix " << i << ", row " << r;
                    }
                }
            }
        }
    }
}

// The order of warp_sum: pairs of lanes that are 16, 8, 4, 2 and 1 apart.
TEST_F(StreamPlanTest, RowsOfAPairAreSummedAsOneByOne) {
#if defined(__linux__)
    const std::vector<float> x = draw(64);
    float expected[2] = {};
    for (int r = 0; r < 2; ++r) {
        float sums[32];
        std::copy_n(&x[32 * r], 32, sums);
        for (int n = 16; n > 0; n /= 2) {
            for (int lane = 0; lane < n; ++lane) {
                sums[lane] += sums[lane + n];
            }
        }
        expected[r] = sums[0];
    }
    test::LaneFibers::run(32, [&](const auto& lanes) {
        EXPECT_EQ(warp_sums(lanes, x[lanes.lane()], x[32 + lanes.lane()]), expected[lanes.lane() / 16]);
    });
#else
    GTEST_SKIP() << "fibers need Linux";
#endif
}

// Blocks of two types together fill the GPU, each type by its bytes.
TEST(StreamPlan, TwoTypesShareTheBlocks) {
    EXPECT_EQ(first_stream_blocks(3000, 1000, 132), 99);
    EXPECT_EQ(first_stream_blocks(8192 * 2304, 4096 * 3360, 132), 76);
    EXPECT_EQ(first_stream_blocks(size_t{1} << 40, 1, 132), 131);
    EXPECT_EQ(first_stream_blocks(1, size_t{1} << 40, 132), 1);
    EXPECT_TRUE(streams_together(WeightType::Q4_K, WeightType::Q6_K));
    EXPECT_FALSE(streams_together(WeightType::Q6_K, WeightType::Q4_K));
    EXPECT_FALSE(streams_together(WeightType::Q4_K, WeightType::Q4_K));
}

// A multiprocessor holds one block, and blocks of other kernels beside it.
TEST(StreamPlan, SharedMemoryHoldsOneBlock) {
    for (const WeightType type : kStreamTypes) {
        SCOPED_TRACE(weight_type_traits(type)->name);
        const StreamStep step = StreamStep::of(type);
        EXPECT_EQ(step.bytes % 16, 0);
        EXPECT_EQ(step.pitch % 16, 0);
        EXPECT_GE(step.pitch, step.bytes + 16 - step.align);
        // read_words reads up to four bytes after the last block.
        EXPECT_GE(step.start_offset(), step.bytes + (step.align < 4 ? 16 : 0));
        EXPECT_GE(step.stages, 2);
        EXPECT_GT(2 * (stream_bytes(type, 256) + 1024), 228 << 10);
        EXPECT_LE(stream_bytes(type, 4096) + kPartialBytes, 192 << 10);
        EXPECT_TRUE(streams(type, 11008, kH200.shared_bytes));
        EXPECT_FALSE(streams(type, 1 << 20, kH200.shared_bytes)) << "the activations do not fit";
        EXPECT_FALSE(streams(type, 260, kH200.shared_bytes));
    }
    EXPECT_FALSE(streams(WeightType::F32, 4096, kH200.shared_bytes));
    EXPECT_FALSE(streams(WeightType::Q2_K, 4096, kH200.shared_bytes));
    EXPECT_FALSE(streams(WeightType::Q4_K, 4096, 163 << 10)) << "sm_80 starts no kernel early";
}

// Multiprocessors have the same number of row pairs, or one more; warps of a block the same number of steps, or one
// more, in order and without gaps.
TEST(StreamPlan, ProcessorsAndWarpsShareTheSteps) {
    for (const int n_rows : {1, 37, 4096, 12288, 22016, 32000}) {
        for (const int n_cols : {256, 4096, 11008}) {
            FewProducts products{};
            products.count = 1;
            products.n_rows[0] = n_rows;
            const StreamPlan plan = StreamPlan::of(WeightType::Q4_K, products, n_cols, kH200.count);
            for (int step = 0; step <= 1 << 20; ++step) {
                ASSERT_EQ(plan.pair_of(step), step / plan.n_steps) << plan.n_steps;
            }
            int all = 0;
            int least_of_block = n_rows;
            int most_of_block = 0;
            for (int block = 0; block < plan.n_blocks; ++block) {
                ASSERT_EQ(plan.first_step(block, 0), 0);
                const int steps = plan.first_step(block, StreamStep::kWarps);
                ASSERT_EQ(steps % plan.n_steps, 0);
                for (int warp = 0; warp < StreamStep::kWarps; ++warp) {
                    const int own = plan.steps(block, warp);
                    ASSERT_GE(own, steps / StreamStep::kWarps);
                    ASSERT_LE(own, (steps + StreamStep::kWarps - 1) / StreamStep::kWarps);
                }
                least_of_block = std::min(least_of_block, steps / plan.n_steps);
                most_of_block = std::max(most_of_block, steps / plan.n_steps);
                all += steps / plan.n_steps;
            }
            EXPECT_EQ(all, (n_rows + 1) / 2);
            EXPECT_LE(most_of_block - least_of_block, 1) << n_rows;
        }
    }
}

}  // namespace
}  // namespace lk::cuda
