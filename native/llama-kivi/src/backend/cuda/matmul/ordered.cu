// GEMMs of halves with one order of summing: an output element has the same bits for any number of tokens. A row is
// divided into OrderedPlan::kSegments segments of whole chunks of 32 elements. A segment is summed chunk after chunk on
// tensor cores, then the segments are added in order. ordered_few.cu does the same for few tokens.
#include <type_traits>

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"

namespace lk::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = OrderedPlan::kRows;  // rows of weights per thread block
constexpr int kChunks = OrderedPlan::kStepChunks;
constexpr int kPitch = OrderedPlan::kPitch;
constexpr int kPieces = 4 * kChunks;  // 16-byte pieces of a row per step

// A thread block multiplies 128 rows of weights by kColumns tokens. A warp has kM tiles of 16 rows and four of 8
// tokens.
template <int kColumns>
struct OrderedShape {
    static constexpr int kColumnWarps = kColumns / 32;
    static constexpr int kM = kRows / 16 * kColumnWarps / kWarps;
    static constexpr int kN = 4;
    static constexpr int kStageBytes = OrderedPlan::stage_bytes(kColumns);
};

// Arguments of a launch.
struct OrderedWork {
    OrderedProducts products;
    const uint16_t* x;  // [n, n_cols]
    float* sums;        // [slot, n, rows of all matrices] if segments are distributed over thread blocks
    OrderedPlan plan;
    int all_rows;
    int n_cols;
    int n;
};
static_assert(kUnpadded<OrderedProducts, FewProducts, int[FewProducts::kMost], bool, bool[7]>);
static_assert(kUnpadded<OrderedWork, OrderedProducts, void*, void*, OrderedPlan, int, int, int>);

// The matrix that a thread block multiplies.
struct OrderedMatrix {
    __device__ OrderedMatrix(const OrderedWork& work, int block)
        : which(product_of(work.products.matrices, block)),
          first_row((block - work.products.matrices.first_block[which]) * kRows),
          n_rows(work.products.matrices.n_rows[which]) {
        for (int i = 0; i < which; ++i) {
            rows_before += work.products.matrices.n_rows[i];
        }
    }

    int which;
    int first_row;
    int n_rows;
    int rows_before = 0;  // of the matrices before it
};

// Position of a step: up to two chunks of one segment.
struct OrderedStep {
    int segment;
    int chunk;

    __device__ void advance(const OrderedPlan& plan) {
        chunk += kChunks;
        if (chunk >= plan.end_of(segment)) {
            chunk = plan.begin_of(++segment);
        }
    }
};

// Grid: [column blocks, row blocks, parts of the segments].
template <int kColumns, int kStages>
__global__ void __launch_bounds__(kThreads, 1) multiply_ordered_kernel(const __grid_constant__ OrderedWork a) {
    using S = OrderedShape<kColumns>;
    if (!a.products.constant) {
        after_previous();
    }
    extern __shared__ __align__(128) uint8_t shared[];
    const int first_column = blockIdx.x * kColumns;
    const OrderedMatrix matrix(a, blockIdx.y);
    const int first_row = matrix.first_row;
    const auto* const w = reinterpret_cast<const uint16_t*>(a.products.matrices.w[matrix.which]);
    const int warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4;
    const int j = threadIdx.x % 4;
    const int own_column = warp % S::kColumnWarps * 32;
    const int own_row = warp / S::kColumnWarps * 16 * S::kM;

    const int piece = threadIdx.x % kPieces;
    constexpr int kTogether = kThreads / kPieces;  // rows copied at once
    // Copies one piece of `count` rows; after the end of a row, zeros.
    const auto fetch = [&](const OrderedStep& at, const uint16_t* rows, int first, int last, auto count, uint8_t* to) {
        const int element = at.chunk * 32 + 8 * piece;
        const int bytes = element < a.n_cols ? 16 : 0;
        const uint16_t* const from = rows + (bytes > 0 ? element : 0);
#pragma unroll
        for (int i = 0; i < decltype(count)::value; i += kTogether) {
            const int r = i + threadIdx.x / kPieces;
            copy_async_some(to + r * kPitch + 16 * piece, from + static_cast<size_t>(min(first + r, last)) * a.n_cols,
                            bytes);
        }
    };
    const auto fetch_rows = [&](const OrderedStep& at, int stage) {
        fetch(at, w, first_row, matrix.n_rows - 1, std::integral_constant<int, kRows>{},
              shared + stage * S::kStageBytes);
    };
    const auto fetch_columns = [&](const OrderedStep& at, int stage) {
        fetch(at, a.x, first_column, a.n - 1, std::integral_constant<int, kColumns>{},
              shared + stage * S::kStageBytes + kRows * kPitch);
    };

    float acc[S::kM][S::kN][4] = {};
    float total[S::kM][S::kN][4] = {};
    // Calls f(row, column, sum) for each of the lane's sums in the matrices.
    const auto for_each = [&](const float(&sums)[S::kM][S::kN][4], auto&& f) {
#pragma unroll
        for (int m = 0; m < S::kM; ++m) {
#pragma unroll
            for (int t = 0; t < S::kN; ++t) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = first_row + own_row + 16 * m + i / 2 * 8 + g;
                    const int column = first_column + own_column + 8 * t + 2 * j + i % 2;
                    if (row < matrix.n_rows && column < a.n) {
                        f(row, column, sums[m][t][i]);
                    }
                }
            }
        }
    };
    const auto store = [&](const float(&values)[S::kM][S::kN][4], int slot) {
        float* const sums = a.sums + static_cast<size_t>(slot) * a.n * a.all_rows + matrix.rows_before;
        for_each(values,
                 [&](int row, int column, float sum) { sums[static_cast<size_t>(column) * a.all_rows + row] = sum; });
    };
    const auto multiply_chunk = [&](const uint8_t* stage, int chunk) {
        const uint8_t* const rows = stage + (own_row + g) * kPitch + 64 * chunk + 16 * j;
        const uint8_t* const columns = stage + (kRows + own_column + g) * kPitch + 64 * chunk + 16 * j;
        const auto load = [](const uint8_t* from) { return *reinterpret_cast<const uint4*>(from); };
        uint4 b[S::kN];
#pragma unroll
        for (int t = 0; t < S::kN; ++t) {
            b[t] = load(columns + 8 * t * kPitch);
        }
#pragma unroll
        for (int m = 0; m < S::kM; ++m) {
            const uint4 low = load(rows + 16 * m * kPitch);
            const uint4 high = load(rows + (16 * m + 8) * kPitch);
#pragma unroll
            for (int t = 0; t < S::kN; ++t) {
                multiply(acc[m][t], low.x, high.x, low.y, high.y, b[t].x, b[t].y);
            }
#pragma unroll
            for (int t = 0; t < S::kN; ++t) {
                multiply(acc[m][t], low.z, high.z, low.w, high.w, b[t].z, b[t].w);
            }
        }
    };

    const int parts = gridDim.z;
    const int end_segment = min(OrderedPlan::kSegments, a.plan.segments_each() * static_cast<int>(blockIdx.z + 1));
    OrderedStep step{a.plan.segments_each() * static_cast<int>(blockIdx.z), 0};
    step.chunk = a.plan.begin_of(step.segment);
    // Prefetch weights before the preceding kernels finish.
    OrderedStep ahead = step;
    for (int i = 0; i < kStages - 1 && ahead.segment < end_segment; ++i) {
        fetch_rows(ahead, i);
        ahead.advance(a.plan);
    }
    if (a.products.constant) {
        after_previous();
    }
    ahead = step;
    for (int i = 0; i < kStages - 1; ++i) {
        if (ahead.segment < end_segment) {
            fetch_columns(ahead, i);
            ahead.advance(a.plan);
        }
        copy_commit();
    }
    int stage = 0;
    while (step.segment < end_segment) {
        copy_wait<kStages - 2>();
        __syncthreads();  // all warps are done with the previous stage
        if (ahead.segment < end_segment) {
            fetch_rows(ahead, (stage + kStages - 1) % kStages);
            fetch_columns(ahead, (stage + kStages - 1) % kStages);
            ahead.advance(a.plan);
        }
        copy_commit();
        const uint8_t* const data = shared + stage * S::kStageBytes;
        multiply_chunk(data, 0);
        if (step.chunk + 1 < a.plan.end_of(step.segment)) {
            multiply_chunk(data, 1);
        }
        const int segment = step.segment;
        step.advance(a.plan);
        if (step.segment != segment) {
            // The first part adds its segments; the others store each segment, because the sum before it is missing.
            if (blockIdx.z > 0) {
                store(acc, segment - a.plan.segments_each() + 1);
            }
#pragma unroll
            for (int i = 0; i < S::kM * S::kN * 4; ++i) {
                float& sum = acc[i / (4 * S::kN)][i / 4 % S::kN][i % 4];
                total[i / (4 * S::kN)][i / 4 % S::kN][i % 4] += sum;
                sum = 0;
            }
        }
        stage = (stage + 1) % kStages;
    }
    if (parts > 1 && blockIdx.z == 0) {
        store(total, 0);
    } else if (parts == 1) {
        for_each(total, [&](int row, int column, float sum) {
            float& out = a.products.y_of(matrix.which, column, row);
            out = a.products.matrices.add[matrix.which] ? out + sum : sum;
        });
    }
}

// Adds the partial sums of each output element in order. Grid: [blocks of the rows of all matrices, n].
__global__ void add_segments_kernel(const __grid_constant__ OrderedWork a) {
    after_previous();
    const int of_all = blockIdx.x * blockDim.x + threadIdx.x;
    if (of_all >= a.all_rows) {
        return;
    }
    const int column = blockIdx.y;
    float total = 0;
    for (int s = 0; s < a.plan.slots(); ++s) {
        total += a.sums[(static_cast<size_t>(s) * a.n + column) * a.all_rows + of_all];
    }
    int which = 0;
    int row = of_all;
    while (row >= a.products.matrices.n_rows[which]) {
        row -= a.products.matrices.n_rows[which++];
    }
    float& out = a.products.y_of(which, column, row);
    out = a.products.matrices.add[which] ? out + total : total;
}

template <int kColumns, int kStages>
void launch(const OrderedWork& work, Stream& stream) {
    constexpr auto* kKernel = multiply_ordered_kernel<kColumns, kStages>;
    constexpr int kBytes = kStages * OrderedPlan::stage_bytes(kColumns);
    static const bool raised =
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) == cudaSuccess;
    static_cast<void>(raised);
    queue(kKernel, dim3((work.n + kColumns - 1) / kColumns, work.plan.row_blocks, work.plan.parts), kThreads, kBytes,
          stream, work);
}

}  // namespace

void multiply_ordered(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                      float* sums, Stream& stream) {
    count_blocks(products.matrices, kRows);
    const OrderedWork work{products, x, sums, plan, products.all_rows(), n_cols, n};
    const auto launch_columns = [&](auto columns) {
        constexpr int kColumns = decltype(columns)::value;
        if (plan.n_stages == OrderedPlan::kStages) {
            launch<kColumns, OrderedPlan::kStages>(work, stream);
        } else {
            launch<kColumns, OrderedPlan::kLeastStages>(work, stream);
        }
    };
    switch (plan.columns) {
    case 32:
        launch_columns(std::integral_constant<int, 32>{});
        break;
    case 64:
        launch_columns(std::integral_constant<int, 64>{});
        break;
    default:
        launch_columns(std::integral_constant<int, OrderedPlan::kMostColumns>{});
    }
    if (plan.parts > 1) {
        constexpr int kRowsEach = 256;
        queue(add_segments_kernel, dim3((work.all_rows + kRowsEach - 1) / kRowsEach, n), kRowsEach, 0, stream, work);
    }
}

}  // namespace lk::cuda
