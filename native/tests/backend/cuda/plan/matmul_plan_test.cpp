// Selection of CUDA matmul kernels and their plans: host functions.
#include <gtest/gtest.h>

#include <vector>

#include "backend/cuda/plan/matmul_launch.h"
#include "backend/cuda/plan/ordered_plan.h"
#include "backend/cuda/plan/rows_form.h"
#include "support/kv_helpers.h"
#include "support/weight_rows.h"

namespace lk::cuda {
namespace {

constexpr Processors kH200{132, 232448};
constexpr int kAllTokens[] = {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 300};

MatmulKernel select(WeightType type, int n) {
    return select_matmul(type, 4096, n, kH200, false);
}

TEST(MatmulPlan, KernelsByTypeAndTokens) {
    for (const WeightType type : test::kWeightTypes) {
        SCOPED_TRACE(weight_type_traits(type)->name);
        const bool wide = type == WeightType::F32 || type == WeightType::BF16;
        const int few = wide ? 32 : type == WeightType::F16 ? 8 : 1;
        const bool codes = type == WeightType::Q8_0 || type == WeightType::Q4_0 || type == WeightType::Q4_K ||
                           type == WeightType::Q5_K || type == WeightType::Q6_K;
        const bool streams = codes || type == WeightType::F16 || type == WeightType::BF16;
        EXPECT_EQ(takes_codes(type), codes);
        EXPECT_EQ(select_matmul(type, 4096, 1, Processors{132, 99 << 10}, false),
                  codes ? MatmulKernel::vector_codes : MatmulKernel::vector)
            << "the ring does not fit";
        for (const int n : kAllTokens) {
            SCOPED_TRACE(n);
            const MatmulKernel expected = n == 1     ? (streams ? MatmulKernel::stream : MatmulKernel::vector)
                                          : n <= few ? MatmulKernel::few
                                          : n <= 64 && !is_float(type) ? MatmulKernel::tiles
                                                                       : MatmulKernel::halves;
            EXPECT_EQ(select(type, n), expected);
        }
    }
}

// With wgmma, some quantized weights have a kernel of their own from 17 tokens on, in batch-invariant passes for
// any number of them, if rows are whole steps of 256. F16 weights have one for few tokens.
TEST(MatmulPlan, KernelsWithWgmma) {
    const Processors processors{132, 232448, true};
    for (const WeightType type : test::kWeightTypes) {
        SCOPED_TRACE(weight_type_traits(type)->name);
        const bool takes = type == WeightType::Q4_K || type == WeightType::Q5_K || type == WeightType::Q6_K ||
                           type == WeightType::Q8_0;
        for (const int n : {1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 2048}) {
            SCOPED_TRACE(n);
            const bool uses = takes && n >= 17 && n <= 128;
            const bool halves = type == WeightType::F16 && n > 1 && n <= 8;
            EXPECT_EQ(select_matmul(type, 4096, n, processors, false), uses     ? MatmulKernel::quantized_wgmma
                                                                       : halves ? MatmulKernel::few_wgmma
                                                                                : select(type, n));
            const MatmulKernel invariant = select_matmul(type, 4096, n, processors, true);
            EXPECT_EQ(invariant == MatmulKernel::quantized_wgmma, takes) << "one kernel for every n";
            EXPECT_EQ(invariant == MatmulKernel::tiles, !takes && !is_float(type));
            EXPECT_EQ(takes_lane_halves(invariant), takes);
        }
    }
    EXPECT_EQ(select_matmul(WeightType::Q8_0, 4128, 32, processors, false), MatmulKernel::tiles);
    EXPECT_EQ(select_matmul(WeightType::Q8_0, 4128, 128, processors, false), MatmulKernel::halves);
    EXPECT_EQ(select_matmul(WeightType::Q8_0, 4128, 128, processors, true), MatmulKernel::tiles);
}

// Tiles need three stages in shared memory. An H200 has room for every type; smaller GPUs use cuBLAS for some.
TEST(MatmulPlan, TilesNeedSharedMemory) {
    for (const WeightType type : test::kWeightTypes) {
        if (is_float(type)) {
            continue;
        }
        for (const int n : {16, 32, 64}) {
            const int stage = TileStep::of(type).stage_bytes(column_tiles(n));
            EXPECT_EQ(select_matmul(type, 4096, n, Processors{132, 3 * stage}, false), MatmulKernel::tiles);
            EXPECT_EQ(select_matmul(type, 4096, n, Processors{132, 3 * stage - 1}, false), MatmulKernel::halves);
        }
    }
}

// The 16-byte copies cover a row at any alignment, and four neighbouring rows start in different banks.
TEST(MatmulPlan, StepsLieInSharedMemory) {
    for (const WeightType type : test::kWeightTypes) {
        if (is_float(type)) {
            continue;
        }
        const TileStep step = TileStep::of(type);
        const WeightTypeTraits& traits = *weight_type_traits(type);
        EXPECT_EQ(static_cast<uint32_t>(block_bytes(type)), traits.block_bytes);
        EXPECT_EQ(static_cast<uint32_t>(block_elements(type)), traits.block_elements);
        EXPECT_EQ(step.bytes, 256 / block_elements(type) * block_bytes(type));
        EXPECT_EQ(block_bytes(type) % step.align, 0);
        EXPECT_GE(16 * step.pieces, step.bytes + 16 - step.align);
        EXPECT_GE(step.pitch, 16 * step.pieces);
        EXPECT_EQ(step.pitch / 32 % 2, 1);
        EXPECT_LE(step.pieces, 32);
    }
}

// The error names the operation, the type and the shape.
TEST(MatmulPlan, UnknownWeightsFail) {
    const auto unknown = static_cast<WeightType>(23);
    test::expect_error(LK_UNSUPPORTED, {"matmul", "type 23", "4096", "7 tokens"}, [&] { select(unknown, 7); });
    test::expect_error(LK_UNSUPPORTED, {"matmul", "F16", "4100", "1 tokens"},
                       [] { select_matmul(WeightType::F16, 4100, 1, kH200, false); });
    test::expect_error(LK_UNSUPPORTED, {"matmul", "Q4_K", "384", "300 tokens"},
                       [] { select_matmul(WeightType::Q4_K, 384, 300, kH200, false); });
    test::expect_error(LK_INTERNAL_ERROR, {"matmul in tiles", "F32"},
                       [] { fail_weights("matmul in tiles", WeightType::F32); });
    test::expect_error(LK_INTERNAL_ERROR, {"rows", "form 9", "3 rows of 64"}, [] { fail_form(9, 3, 64); });
    EXPECT_FALSE(supports_matmul(unknown, 4096));
    EXPECT_FALSE(supports_matmul(WeightType::F32, 4));
    EXPECT_TRUE(supports_matmul(WeightType::F32, 8));
    EXPECT_FALSE(supports_matmul(WeightType::Q8_0, 48));
    EXPECT_TRUE(supports_matmul(WeightType::Q8_0, 64));
    for (const WeightType type : test::kWeightTypes) {
        EXPECT_TRUE(supports_matmul(type, 256)) << weight_type_traits(type)->name;
    }
}

// Launches cover all products in order; each takes up to four products of one type, or with one token of two types that
// files of K formats mix.
TEST(MatmulPlan, LaunchesTakeNeighbours) {
    const std::vector<WeightType> types = {WeightType::Q4_K, WeightType::Q4_K, WeightType::Q6_K,
                                           WeightType::Q4_K, WeightType::Q8_0, WeightType::Q8_0,
                                           WeightType::Q8_0, WeightType::Q8_0, WeightType::Q8_0};
    std::vector<Tensor> tensors;
    for (const WeightType type : types) {
        tensors.push_back({type, nullptr, 4096, 100, 0});
    }
    std::vector<Product> products;
    for (const Tensor& t : tensors) {
        products.push_back({&t, nullptr});
    }
    const auto counts = [&](int n) {
        std::vector<size_t> out;
        for (std::span<const Product> rest = products; !rest.empty();) {
            const MatmulLaunch launch = next_launch(rest, n, kH200, false);
            EXPECT_EQ(launch.kernel, select(rest[0].w->type, n));
            out.push_back(launch.count);
            rest = rest.subspan(launch.count);
        }
        return out;
    };
    EXPECT_EQ(counts(1), (std::vector<size_t>{4, 4, 1}));
    EXPECT_EQ(counts(40), (std::vector<size_t>{2, 1, 1, 4, 1}));
    EXPECT_EQ(counts(100), std::vector<size_t>(9, 1)) << "converts one matrix at a time";
}

// Kernels of one order of summing: multiply_ordered_few and multiply_ordered share theirs, multiply_tiles has its own.
TEST(MatmulPlan, InvariantKernelsSumInOneOrder) {
    for (const WeightType type : test::kWeightTypes) {
        for (const int shared_bytes : {kH200.shared_bytes, 100 << 10, 48 << 10}) {
            SCOPED_TRACE(format("%s, %d bytes", weight_type_traits(type)->name, shared_bytes));
            const bool tiles =
                select_matmul(type, 4096, 300, Processors{132, shared_bytes}, true) == MatmulKernel::tiles;
            EXPECT_EQ(tiles, !is_float(type) && tile_columns(type, shared_bytes) > 0);
            for (const int n : kAllTokens) {
                const MatmulKernel kernel = select_matmul(type, 4096, n, Processors{132, shared_bytes}, true);
                const bool few = n <= OrderedPlan::kFewColumns;
                EXPECT_EQ(kernel == MatmulKernel::tiles, tiles);
                EXPECT_TRUE(tiles || kernel == MatmulKernel::ordered || (kernel == MatmulKernel::ordered_few && few));
            }
        }
    }
    for (const WeightType type : {WeightType::Q4_K, WeightType::Q8_0}) {
        EXPECT_EQ(tile_columns(type, kH200.shared_bytes), 64);
        EXPECT_LT(tile_columns(type, 100 << 10), 64);
    }
    EXPECT_EQ(tile_columns(WeightType::Q4_K, 163 << 10), 64) << "an A100's shared memory";
}

// With wgmma, halves are read as they are for any number of tokens. Few tokens do not pay for a conversion.
TEST(MatmulPlan, WgmmaTakesFewTokensOfHalves) {
    const Processors wgmma{132, 232448, true};
    for (const int n : {1, 8}) {
        const auto kernel = [n](WeightType type, const Processors& processors) {
            return select_matmul(type, 4096, n, processors, true);
        };
        EXPECT_EQ(kernel(WeightType::F16, kH200), MatmulKernel::ordered_few);
        EXPECT_EQ(kernel(WeightType::F16, wgmma), MatmulKernel::ordered);
        EXPECT_EQ(kernel(WeightType::BF16, wgmma), MatmulKernel::ordered_few);
        EXPECT_EQ(kernel(WeightType::F32, wgmma), MatmulKernel::ordered_few);
    }
    EXPECT_EQ(select_matmul(WeightType::BF16, 4096, 9, wgmma, true), MatmulKernel::ordered);
}

TEST(MatmulPlan, FewTokensOfF16WeightsShareALaunch) {
    const Processors wgmma{132, 232448, true};
    const std::vector<Tensor> weights(3, Tensor{WeightType::F16, nullptr, 4096, 4096, 8192});
    std::vector<Product> products;
    for (const Tensor& w : weights) {
        products.push_back({&w, nullptr});
    }
    const MatmulLaunch launch = next_launch(products, 8, wgmma, false);
    EXPECT_EQ(launch.kernel, MatmulKernel::few_wgmma);
    EXPECT_EQ(launch.count, 3u);
    EXPECT_EQ(next_launch(products, 9, wgmma, false).kernel, MatmulKernel::halves);
    EXPECT_EQ(next_launch(products, 9, wgmma, false).count, 3u) << "cuBLAS takes those of one shape together";
}

// Matrices that a call of cuBLAS takes together have one shape and equal distances.
TEST(MatmulPlan, EquallySpacedMatricesShareACall) {
    std::vector<uint8_t> weights(4096);
    std::vector<float> sums(4096);
    FewProducts products{};
    products.count = 3;
    const auto place = [&](int i, int w, int y, int n_rows) {
        products.w[i] = &weights[w];
        products.y[i] = &sums[y];
        products.n_rows[i] = n_rows;
    };
    const auto expect = [&](int first, int count, int64_t w_stride, int64_t y_stride) {
        const GemmBatch batch = GemmBatch::of(products, first);
        EXPECT_EQ(batch.count, count);
        EXPECT_EQ(batch.w_stride, w_stride);
        EXPECT_EQ(batch.y_stride, y_stride);
    };
    place(0, 0, 0, 8);
    place(1, 320, 64, 8);
    place(2, 640, 128, 8);
    expect(0, 3, 160, 64);
    expect(1, 2, 160, 64);
    expect(2, 1, 0, 0);
    place(2, 656, 128, 8);
    expect(0, 2, 160, 64);
    expect(1, 2, 168, 64);
    place(2, 640, 132, 8);
    expect(0, 2, 160, 64);
    place(1, 320, 64, 4);
    expect(0, 1, 0, 0);  // other rows
    place(1, 328, 64, 8);
    expect(0, 1, 0, 0);  // not aligned
    place(1, 320, 66, 8);
    expect(0, 1, 0, 0);
    place(1, 320, 64, 8);
    products.add[1] = true;
    expect(0, 1, 0, 0);
    products.add[0] = true;
    expect(0, 2, 160, 64);
    place(0, 480, 0, 8);
    expect(0, 1, 0, 0);  // backwards
    place(0, 0, 96, 8);
    expect(0, 1, 0, 0);
}

TEST(MatmulPlan, BlocksOfRowsFollowEachOther) {
    FewProducts products{};
    products.count = 3;
    products.n_rows[0] = 97;
    products.n_rows[1] = 1;
    products.n_rows[2] = 192;
    EXPECT_EQ(count_blocks(products, 96), 5);
    EXPECT_EQ(products.first_block[0], 0);
    EXPECT_EQ(products.first_block[1], 2);
    EXPECT_EQ(products.first_block[2], 3);
}

TEST(MatmulPlan, TilesShareTheDevice) {
    for (const WeightType type : {WeightType::Q4_K, WeightType::Q8_0, WeightType::Q6_K}) {
        for (const int n : {2, 9, 64}) {
            FewProducts products{};
            products.count = 2;
            products.n_rows[0] = 4096;
            products.n_rows[1] = 1000;
            const TilePlan plan = plan_tiles(type, products, 2304, n, kH200);
            EXPECT_EQ(plan.n_tiles, 32 + 8);
            EXPECT_EQ(plan.n_steps, 9);
            EXPECT_EQ(plan.shares.n_blocks, kH200.count);
            EXPECT_EQ(plan.shares.begin(plan.shares.n_blocks), plan.n_tiles * plan.n_steps);
            EXPECT_GE(plan.n_stages, 3);
            EXPECT_LE(plan.n_stages, 6);
            EXPECT_LE(plan.shared_bytes, kH200.shared_bytes);
            EXPECT_EQ(plan.shared_bytes, plan.n_stages * TileStep::of(type).stage_bytes(column_tiles(n)));
            EXPECT_EQ(plan.n_sums(), size_t{2} * 132 * 128 * 64);
            const Processors larger{132, 1 << 20};
            EXPECT_EQ(plan_tiles(type, products, 2304, n, larger).n_stages, plan.n_stages)
                << "kernels are compiled for at most the stages that fit in an H200";
        }
    }
}

}  // namespace
}  // namespace lk::cuda
