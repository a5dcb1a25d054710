// GEMMs of weights in super blocks with up to 8 tokens, in the order of summing of tile.cu. There the steps of a tile
// of 96 rows are shared by thread blocks, and four warps sum a quarter of each step. Here a thread block multiplies 16
// rows; a warp takes the steps of one of those blocks and has the four quarters in accumulators of their own.
#include <algorithm>

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kRows = 16;
constexpr int kColumns = OrderedPlan::kFewColumns;
constexpr int kQuarters = 4;  // of a step
static_assert(TilePlan::kRows % kRows == 0);

struct TilesFewWork {
    FewProducts products;  // in blocks of 16 rows
    int first_tile[FewProducts::kMost];
    size_t row_bytes;
    int n_cols;
    const uint16_t* x;  // [n, n_cols]
    int n;
    TilePlan plan;
};

template <WeightType kType>
__global__ void __launch_bounds__(kWarps * 32) multiply_tiles_few_kernel(const __grid_constant__ TilesFewWork a) {
    __shared__ float sums[kWarps][kColumns][kRows + 1];
    const int which = product_of(a.products, blockIdx.x);
    const int n_rows = a.products.n_rows[which];
    const int first_row = (blockIdx.x - a.products.first_block[which]) * kRows;
    const int warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4;
    const int j = threadIdx.x % 4;
    const auto row_at = [&](int r) {
        return a.products.w[which] + static_cast<size_t>(min(first_row + r, n_rows - 1)) * a.row_bytes;
    };
    const uint8_t* const low = row_at(g);
    const uint8_t* const high = row_at(g + 8);
    const int tile_begin = (a.first_tile[which] + first_row / TilePlan::kRows) * a.plan.n_steps;
    const int tile_end = tile_begin + a.plan.n_steps;
    const int first_share = a.plan.shares.block_of(tile_begin);
    const int n_shares = a.plan.shares.block_of(tile_end - 1) - first_share + 1;
    const int own_column = threadIdx.x / kRows;
    const int own_row = threadIdx.x % kRows;
    float total = 0;
    after_previous();
    for (int round = 0; round < n_shares; round += kWarps) {
        const int share = first_share + round + warp;
        float acc[kQuarters][4] = {};
        if (round + warp < n_shares) {
            const int begin = max(a.plan.shares.begin(share), tile_begin) - tile_begin;
            const int end = min(a.plan.shares.begin(share + 1), tile_end) - tile_begin;
            for (int step = begin; step < end; ++step) {
                constexpr int kTogether = chunks_together(kType);
#pragma unroll
                for (int first = 0; first < 2 * kQuarters; first += kTogether) {
                    const int i = step * TilePlan::kStepElements + 32 * first + 8 * j;
                    uint4 of_low[kTogether];
                    uint4 of_high[kTogether];
                    decode_chunks<kType>(low, i, of_low);
                    decode_chunks<kType>(high, i, of_high);
#pragma unroll
                    for (int k = 0; k < kTogether; ++k) {
                        uint4 c = make_uint4(0, 0, 0, 0);
                        if (g < a.n) {
                            c = *reinterpret_cast<const uint4*>(a.x + static_cast<size_t>(g) * a.n_cols + i + 32 * k);
                        }
                        float(&sum)[4] = acc[(first + k) / 2];
                        multiply(sum, of_low[k].x, of_high[k].x, of_low[k].y, of_high[k].y, c.x, c.y);
                        multiply(sum, of_low[k].z, of_high[k].z, of_low[k].w, of_high[k].w, c.z, c.w);
                    }
                }
            }
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            sums[warp][2 * j + k % 2][g + k / 2 * 8] = (acc[0][k] + acc[2][k]) + (acc[1][k] + acc[3][k]);
        }
        __syncthreads();
        if (own_column < a.n) {
            for (int w = 0; w < min(kWarps, n_shares - round); ++w) {
                total += sums[w][own_column][own_row];
            }
        }
        __syncthreads();
    }
    if (own_column < a.n && first_row + own_row < n_rows) {
        float& out = a.products.y[which][static_cast<size_t>(own_column) * n_rows + first_row + own_row];
        out = a.products.add[which] ? out + total : total;
    }
}

}  // namespace

void multiply_tiles_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                        const TilePlan& plan, cudaStream_t stream) {
    TilesFewWork work{products, {}, row_bytes, n_cols, x, n, plan};
    count_blocks(work.products, TilePlan::kRows);
    std::copy_n(work.products.first_block, products.count, work.first_tile);
    const int n_blocks = count_blocks(work.products, kRows);
    dispatch("matmul with few tokens in tiles", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (takes_few_tiles(kType)) {
            queue(multiply_tiles_few_kernel<kType>, n_blocks, kWarps * 32, 0, stream, work);
        } else {
            fail_weights("matmul with few tokens in tiles", type);
        }
    });
}

}  // namespace lk::cuda
