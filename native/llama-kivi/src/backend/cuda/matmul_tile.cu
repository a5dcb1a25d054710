// Products with 9 to 64 columns of quantized weights. A block multiplies 64 rows of weights with all columns: these lie in
// shared memory, fetched some steps ahead, and each warp turns 16 rows of weights into halves for the matrix units. Each
// weight is read and decoded once. A row's length may be split: the last block of some rows to end adds up their sums.
#include <algorithm>
#include <type_traits>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.cuh"
#include "backend/cuda/queue.h"
#include "backend/cuda/splits.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kWarpRows = 16;
static_assert(kWarps * kWarpRows == TilePlan::kRows);

// What a block takes of every row at once.
template <WeightType kType>
struct Step {
    static constexpr int kTogether = chunks_together(kType);
    static constexpr int kChunks = kTogether < 2 ? 2 : kTogether;  // of 32 elements
    static constexpr int kElements = 32 * kChunks;
    // Bytes of a column in shared memory: neighbours begin in other banks.
    static constexpr int kPitch = 2 * kElements + 64;
    static constexpr int kStages = kElements <= 64 ? 3 : 2;
};

// Elements of a step of a row from element `first` on, a lane's eight of every 32; zeros behind the row's end.
template <WeightType kType>
__device__ void decode_step(const uint8_t* row, int first, int n_cols, uint4 (&out)[Step<kType>::kChunks]) {
    const int i = first + threadIdx.x % 4 * 8;
    if constexpr (Step<kType>::kTogether > 1) {
        decode_chunks<kType>(row, i, out);
    } else {
#pragma unroll
        for (int k = 0; k < Step<kType>::kChunks; ++k) {
            out[k] = first + 32 * k < n_cols ? decode8_halves<kType>(row, i + 32 * k) : make_uint4(0, 0, 0, 0);
        }
    }
}

// Asks for the weights of a later step, so that they are in the chip's own cache when they are read.
__device__ void prefetch(const uint8_t* row, size_t offset) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(row + offset));
}

// kTiles: of 8 columns.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(kWarps * 32, kTiles == 8 ? 4 : 5)
    multiply_tiles_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x,
                          int n, float* sums, int* counts) {
    using S = Step<kType>;
    constexpr int kColumns = 8 * kTiles;
    __shared__ __align__(128) uint8_t tiles[S::kStages][kColumns * S::kPitch];
    __shared__ bool is_last;
    const int which = product_of(products);
    const int n_rows = products.n_rows[which];
    const int first_row = (blockIdx.x - products.first_block[which]) * TilePlan::kRows;
    const int warp_row = threadIdx.x / 32 * kWarpRows;
    const int g = threadIdx.x % 32 / 4;
    const int j = threadIdx.x % 4;
    const auto row_at = [&](int row) {
        return products.w[which] + static_cast<size_t>(min(first_row + warp_row + row, n_rows - 1)) * row_bytes;
    };
    const uint8_t* const row0 = row_at(g);
    const uint8_t* const row1 = row_at(g + 8);
    const int n_steps = (n_cols + S::kElements - 1) / S::kElements;
    const int per_split = (n_steps + gridDim.y - 1) / gridDim.y;
    const int begin = blockIdx.y * per_split;
    const int end = min(begin + per_split, n_steps);
    constexpr int kAhead = 8;  // steps
    const size_t step_bytes = row_bytes * S::kElements / n_cols;  // about
    after_previous();

    const auto fetch = [&](int step) {
        constexpr int kPieces = S::kElements / 8;  // of a column
        if (step < end) {
            uint8_t* const tile = tiles[(step - begin) % S::kStages];
#pragma unroll
            for (int p = threadIdx.x; p < kColumns * kPieces; p += kWarps * 32) {
                const int column = p / kPieces;
                const int piece = p % kPieces;
                const int element = step * S::kElements + 8 * piece;
                const bool there = column < n && element < n_cols;
                copy_async_if(there, tile + column * S::kPitch + 16 * piece,
                              there ? x + static_cast<size_t>(column) * n_cols + element : x);
            }
        }
        copy_commit();
    };
#pragma unroll
    for (int s = 0; s + 1 < S::kStages; ++s) {
        fetch(begin + s);
    }
    float acc[kTiles][4] = {};
    uint4 a[S::kChunks] = {};
    uint4 b[S::kChunks] = {};
    if (begin < end) {
        decode_step<kType>(row0, begin * S::kElements, n_cols, a);
        decode_step<kType>(row1, begin * S::kElements, n_cols, b);
    }
    for (int step = begin; step < end; ++step) {
        copy_wait<S::kStages - 2>();
        __syncthreads();
        fetch(step + S::kStages - 1);  // where all warps have done their part
        if (j < 2 && step + kAhead < end) {
            prefetch(j == 0 ? row0 : row1, (step + kAhead) * step_bytes);
        }
        uint4 next_a[S::kChunks] = {};
        uint4 next_b[S::kChunks] = {};
        if (step + 1 < end) {
            decode_step<kType>(row0, (step + 1) * S::kElements, n_cols, next_a);
            decode_step<kType>(row1, (step + 1) * S::kElements, n_cols, next_b);
        }
        const uint8_t* const tile = tiles[(step - begin) % S::kStages];
#pragma unroll
        for (int k = 0; k < S::kChunks; ++k) {
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                const uint4 c = *reinterpret_cast<const uint4*>(tile + (8 * t + g) * S::kPitch + 64 * k + 16 * j);
                multiply(acc[t], a[k].x, b[k].x, a[k].y, b[k].y, c.x, c.y);
                multiply(acc[t], a[k].z, b[k].z, a[k].w, b[k].w, c.z, c.w);
            }
            a[k] = next_a[k];
            b[k] = next_b[k];
        }
    }

    const auto write = [&](int column, int row, float total) {
        if (column < n && first_row + row < n_rows) {
            float& out = products.y[which][static_cast<size_t>(column) * n_rows + first_row + row];
            out = products.add[which] ? out + total : total;
        }
    };
    // f(column, row of the block, sum) of all this lane has.
    const auto for_each_sum = [&](const auto& f) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                f(8 * t + 2 * j + k % 2, warp_row + g + k / 2 * 8, acc[t][k]);
            }
        }
    };
    if (gridDim.y == 1) {
        for_each_sum(write);
        return;
    }
    const size_t block_sums = static_cast<size_t>(blockIdx.x) * gridDim.y * TilePlan::kSums;
    const auto sum_at = [&](int split, int column, int row) {
        return sums + block_sums + static_cast<size_t>(split) * TilePlan::kSums + column * TilePlan::kRows + row;
    };
    for_each_sum([&](int column, int row, float sum) { *sum_at(blockIdx.y, column, row) = sum; });
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(&counts[blockIdx.x], 1) == static_cast<int>(gridDim.y) - 1;
    }
    __syncthreads();
    if (!is_last) {
        return;
    }
    __threadfence();
    // In the same order whichever block is the last; many loads at once.
    constexpr int kRowFours = TilePlan::kRows / 4;
    constexpr int kFours = kColumns * kRowFours / (kWarps * 32);  // of a thread
    float4 totals[kFours] = {};
#pragma unroll(kFours <= 4 ? 4 : 2)
    for (int split = 0; split < static_cast<int>(gridDim.y); ++split) {
#pragma unroll
        for (int f = 0; f < kFours; ++f) {
            const int i = f * kWarps * 32 + threadIdx.x;
            const float4 v = __ldcg(reinterpret_cast<const float4*>(sum_at(split, i / kRowFours, i % kRowFours * 4)));
            totals[f] = make_float4(totals[f].x + v.x, totals[f].y + v.y, totals[f].z + v.z, totals[f].w + v.w);
        }
    }
#pragma unroll
    for (int f = 0; f < kFours; ++f) {
        const int i = f * kWarps * 32 + threadIdx.x;
        const float4 v = totals[f];
        write(i / kRowFours, i % kRowFours * 4, v.x);
        write(i / kRowFours, i % kRowFours * 4 + 1, v.y);
        write(i / kRowFours, i % kRowFours * 4 + 2, v.z);
        write(i / kRowFours, i % kRowFours * 4 + 3, v.w);
    }
    if (threadIdx.x == 0) {
        counts[blockIdx.x] = 0;
    }
}

// Blocks of a kernel that a multiprocessor runs at once.
template <WeightType kType, int kTiles>
int resident_blocks() {
    static const int blocks = [] {
        int n = 1;
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, multiply_tiles_kernel<kType, kTiles>, kWarps * 32, 0);
        return std::max(1, n);
    }();
    return blocks;
}

// f(kernel, elements of a step, resident blocks) of the kernel for a type and n columns.
template <class F>
void with_kernel(WeightType type, int n, F&& f) {
    dispatch(type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (!is_float(kType)) {
            const auto call = [&](auto tiles) {
                constexpr int kTiles = decltype(tiles)::value;
                f(multiply_tiles_kernel<kType, kTiles>, Step<kType>::kElements, resident_blocks<kType, kTiles>());
            };
            n <= 16   ? call(std::integral_constant<int, 2>{})
            : n <= 32 ? call(std::integral_constant<int, 4>{})
                      : call(std::integral_constant<int, 8>{});
        }
    });
}

}  // namespace

TilePlan plan_tiles(WeightType type, const FewProducts& products, int n_cols, int n, int n_processors) {
    constexpr double kOverhead = 8;  // of a block, in steps
    TilePlan plan{0, 1};
    for (int i = 0; i < products.count; ++i) {
        plan.n_blocks += (products.n_rows[i] + TilePlan::kRows - 1) / TilePlan::kRows;
    }
    with_kernel(type, n, [&](auto*, int step, int resident) {
        plan.n_splits = choose_splits(plan.n_blocks, (n_cols + step - 1) / step, resident * n_processors, kOverhead);
    });
    return plan;
}

void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, cudaStream_t stream) {
    count_blocks(products, TilePlan::kRows);
    with_kernel(type, n, [&](auto* kernel, int, int) {
        queue(kernel, dim3(plan.n_blocks, plan.n_splits), kWarps * 32, 0, stream, products, row_bytes, n_cols, x, n, sums,
              counts);
    });
}

}  // namespace lk::cuda
