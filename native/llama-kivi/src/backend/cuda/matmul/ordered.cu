// GEMMs of halves with one order of summing: an output element has the same bits for any number of tokens. A segment
// of a row, see RowSegments, is summed on tensor cores, 16 elements after the other; then the segments are added in
// order. ordered_few.cu does the same for few tokens.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/load_matrices.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"

namespace lk::cuda {

namespace {

// Arguments of a launch.
struct OrderedWork {
    OrderedProducts products;
    const uint16_t* x;  // [n, n_cols]
    float4* sums;       // [split tile, slot, kM, kN, thread]; see OrderedPlan::slots
    OrderedPlan plan;
    int n_cols;
    int n;
};
static_assert(kUnpadded<OrderedProducts, FewProducts, int[FewProducts::kMost], bool, bool[7]>);
static_assert(kUnpadded<OrderedPlan, RowSegments, int[5]>);
static_assert(kUnpadded<OrderedWork, OrderedProducts, void*, void*, OrderedPlan, int, int>);

template <class Tile>
using TileSums = float[Tile::kM][Tile::kN][4];

// Rows and tokens of a tile.
template <class Tile>
struct TilePlace {
    __device__ TilePlace(const OrderedWork& work, int tile) {
        const FewProducts& matrices = work.products.matrices;
        const int block = tile / work.plan.column_blocks;
        which = product_of(matrices, block);
        first_row = (block - matrices.first_block[which]) * Tile::kRows;
        first_column = tile % work.plan.column_blocks * Tile::kColumns;
        n_rows = matrices.n_rows[which] - first_row;
        n_columns = work.n - first_column;
        y = &work.products.y_of(which, first_column, first_row);
        y_rows = work.products.y_rows[which];
        add = matrices.add[which];
    }

    // Writes the lane's sums of tiles m and t to y.
    __device__ void write(int m, int t, const float (&sums)[4]) const {
        const int row = Tile::row_of(threadIdx.x, m, 0);
        const int column = Tile::column_of(threadIdx.x, t, 0);
        float* const out = y + static_cast<size_t>(column) * y_rows + row;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (row + i / 2 * 8 < n_rows && column + i % 2 < n_columns) {
                float& element = out[i % 2 * y_rows + i / 2 * 8];
                element = add ? element + sums[i] : sums[i];
            }
        }
    }

    int which;  // matrix
    int first_row;
    int first_column;
    int n_rows;  // from the first one to the end of the matrix; may be more than the tile's
    int n_columns;
    float* y;  // of the first row and token
    int y_rows;
    bool add;
};

// Copies steps of a tile to shared memory.
template <class Tile>
struct TileCopies {
    __device__ TileCopies(const OrderedWork& work, const TilePlace<Tile>& place)
        : n_cols(work.n_cols), element(8 * Tile::copied_piece(threadIdx.x)) {
        const auto begin = [&](const void* rows, int first) {
            return static_cast<const uint8_t*>(rows) + size_t{2} * static_cast<size_t>(first) * n_cols;
        };
        rows = begin(work.products.matrices.w[place.which], place.first_row);
        columns = begin(work.x, place.first_column);
        // Rows after the last one are copies of it; their sums are not used.
        const auto set = [&](auto& offsets, int last) {
            int i = 0;
            for (unsigned& offset : offsets) {
                const int row = min(Tile::copied_row(threadIdx.x) + Tile::kTogether * i++, last);
                offset = 2u * static_cast<unsigned>(row) * static_cast<unsigned>(n_cols);
            }
        };
        set(row_offsets, place.n_rows - 1);
        set(column_offsets, place.n_columns - 1);
        to = Tile::offset(Tile::copied_row(threadIdx.x), Tile::copied_piece(threadIdx.x));
    }

    __device__ void fetch_rows(int chunk, uint8_t* stage) const { fetch(chunk, rows, row_offsets, stage + to); }
    __device__ void fetch_columns(int chunk, uint8_t* stage) const {
        fetch(chunk, columns, column_offsets, stage + Tile::kRows * Tile::kRowBytes + to);
    }

    // After the end of a row, zeros.
    template <int kCount>
    __device__ void fetch(int chunk, const uint8_t* from, const unsigned (&offsets)[kCount], uint8_t* shared) const {
        const int at = 32 * chunk + element;
        const int bytes = at < n_cols ? 16 : 0;
        from += bytes > 0 ? 2 * at : 0;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            copy_async_some(shared + i * Tile::kTogether * Tile::kRowBytes, from + offsets[i], bytes);
        }
    }

    int n_cols;
    int element;  // of a step
    int to;       // place in a stage
    const uint8_t* rows;
    const uint8_t* columns;
    unsigned row_offsets[Tile::kRows / Tile::kTogether];  // bytes
    unsigned column_offsets[Tile::kColumns / Tile::kTogether];
};

// Operands of a warp: 16 elements of its rows and tokens.
template <class Tile>
struct TileOperands {
    unsigned a[Tile::kM][4];
    unsigned b[Tile::kN / 2][4];  // pairs of tiles of 8 tokens

    // rows, columns: lane_rows and lane_columns in a stage. k: 16 elements of the step.
    __device__ void load(unsigned rows, unsigned columns, int k) {
#pragma unroll
        for (int t = 0; t < Tile::kN / 2; ++t) {
            load_matrices(b[t], (columns ^ 32 * k) + t * 16 * Tile::kRowBytes);
        }
#pragma unroll
        for (int m = 0; m < Tile::kM; ++m) {
            load_matrices(a[m], (rows ^ 32 * k) + m * 16 * Tile::kRowBytes);
        }
    }

    __device__ void multiply_all(TileSums<Tile>& sums) const {
#pragma unroll
        for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
            for (int t = 0; t < Tile::kN; ++t) {
                multiply(sums[m][t], a[m][0], a[m][1], a[m][2], a[m][3], b[t / 2][t % 2 * 2], b[t / 2][t % 2 * 2 + 1]);
            }
        }
    }
};

// Sums of the segments before the current one: of a lane, in registers or in shared memory.
template <class Tile, bool kShared = Tile::kTotalsInShared>
struct TileTotals {
    __device__ explicit TileTotals(uint8_t*) {}
    __device__ void add(int m, int t, const float (&sums)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            totals[m][t][i] += sums[i];
        }
    }
    __device__ void start(int m, int t, const float (&sums)[4]) {
        add(m, t, sums);
    }
    __device__ void add_to(int m, int t, float (&sums)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sums[i] += totals[m][t][i];
        }
    }

    TileSums<Tile> totals = {};
};

template <class Tile>
struct TileTotals<Tile, true> {
    __device__ explicit TileTotals(uint8_t* shared) : totals(reinterpret_cast<float4*>(shared) + threadIdx.x) {}
    __device__ void start(int m, int t, const float (&sums)[4]) {
        at(m, t) = make_float4(0 + sums[0], 0 + sums[1], 0 + sums[2], 0 + sums[3]);
    }
    __device__ void add(int m, int t, float (&sums)[4]) {
        add_to(m, t, sums);
        at(m, t) = make_float4(sums[0], sums[1], sums[2], sums[3]);
    }
    __device__ void add_to(int m, int t, float (&sums)[4]) const {
        const float4 total = at(m, t);
        sums[0] += total.x;
        sums[1] += total.y;
        sums[2] += total.z;
        sums[3] += total.w;
    }

    __device__ float4& at(int m, int t) const { return totals[(m * Tile::kN + t) * Tile::kThreads]; }

    float4* totals;
};

// Calls f(m, t) for the tiles of a warp.
template <class Tile, class F>
__device__ __forceinline__ void for_tiles(F&& f) {
#pragma unroll
    for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
        for (int t = 0; t < Tile::kN; ++t) {
            f(m, t);
        }
    }
}

template <class Tile>
__device__ float4* sums_at(const OrderedWork& a, int tile, int slot) {
    constexpr size_t kEach = size_t{Tile::kM} * Tile::kN * Tile::kThreads;
    return a.sums + (static_cast<size_t>(tile - a.plan.n_whole) * a.plan.slots() + slot) * kEach + threadIdx.x;
}

// Grid: [plan.n_blocks()].
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1) multiply_ordered_kernel(const __grid_constant__ OrderedWork a) {
    constexpr int kStages = Tile::kStages;
    constexpr int kGroups = 2 * Tile::kStepChunks;  // of 16 elements, in a step
    start_next();
    if (!a.products.constant) {
        wait_for_previous();
    }
    extern __shared__ __align__(128) uint8_t shared[];
    const OrderedUnit unit = a.plan.unit_of(blockIdx.x);
    const TilePlace<Tile> place(a, unit.tile);
    const TileCopies<Tile> copies(a, place);
    const int end_segment = unit.end_segment();
    const int end = a.plan.segments.begin_of(end_segment);
    int segment = unit.first_segment;
    int chunk = a.plan.segments.begin_of(segment);

    // Prefetch weights before the preceding kernels finish.
    for (int i = 0; i < kStages - 1; ++i) {
        const int ahead = chunk + i * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_rows(ahead, shared + i * Tile::kStageBytes);
        }
    }
    if (a.products.constant) {
        wait_for_previous();
    }
    for (int i = 0; i < kStages - 1; ++i) {
        const int ahead = chunk + i * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_columns(ahead, shared + i * Tile::kStageBytes);
        }
        copy_commit();
    }

    TileSums<Tile> sums = {};
    TileTotals<Tile> totals(shared + kStages * Tile::kStageBytes);
    // Stores the segment's sums in their slot.
    const auto store = [&] {
        float4* const to = sums_at<Tile>(a, unit.tile, a.plan.slot_of(segment));
        for_tiles<Tile>([&](int m, int t) {
            const float(&s)[4] = sums[m][t];
            to[(m * Tile::kN + t) * Tile::kThreads] = make_float4(s[0], s[1], s[2], s[3]);
        });
    };
    const auto clear = [&] {
        for_tiles<Tile>([&](int m, int t) {
#pragma unroll
            for (float& sum : sums[m][t]) {
                sum = 0;
            }
        });
    };
    // The first part of a tile adds its segments; the others store each segment, because the sum before it is missing.
    const auto finish_segment = [&] {
        if (unit.first_segment > 0) {
            store();
        } else if (segment == 0) {
            for_tiles<Tile>([&](int m, int t) { totals.start(m, t, sums[m][t]); });
        } else {
            for_tiles<Tile>([&](int m, int t) { totals.add(m, t, sums[m][t]); });
        }
        clear();
        ++segment;
    };

    const unsigned base = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const unsigned lane_rows = base + Tile::lane_rows(threadIdx.x);
    const unsigned lane_columns = base + Tile::lane_columns(threadIdx.x);
    TileOperands<Tile> operands[2];
    copy_wait<kStages - 2>();
    __syncthreads();
    operands[0].load(lane_rows, lane_columns, 0);
    int stage = 0;
    int free_stage = kStages - 1;
    const auto next = [](int s) { return s + 1 == kStages ? 0 : s + 1; };
    for (; chunk < end; chunk += Tile::kStepChunks) {
        const int ahead = chunk + (kStages - 1) * Tile::kStepChunks;
        if (ahead < end) {
            copies.fetch_rows(ahead, shared + free_stage * Tile::kStageBytes);
            copies.fetch_columns(ahead, shared + free_stage * Tile::kStageBytes);
        }
        copy_commit();
#pragma unroll
        for (int k = 0; k < kGroups; ++k) {
            // Load the next operands before multiplying, also those of the next step.
            if (k + 1 == kGroups) {
                copy_wait<kStages - 2>();
                __syncthreads();  // all warps have loaded the last operands of the stage
                free_stage = stage;
                stage = next(stage);
            }
            const unsigned at = stage * Tile::kStageBytes;
            operands[(k + 1) % 2].load(lane_rows + at, lane_columns + at, (k + 1) % kGroups);
            const int of_chunk = chunk + k / 2;
            if (k < 2 || of_chunk < end) {
                operands[k % 2].multiply_all(sums);
                if (k % 2 == 1 && of_chunk + 1 < end && of_chunk + 1 == a.plan.segments.end_of(segment)) {
                    finish_segment();
                }
            }
        }
    }
    if (unit.first_segment > 0) {
        for (; segment < end_segment; ++segment) {  // the last segment with elements, and empty ones
            store();
            clear();
        }
        return;
    }
    if (segment > 0) {
        for_tiles<Tile>([&](int m, int t) { totals.add_to(m, t, sums[m][t]); });
    }
    segment = 0;
    if (unit.whole()) {
        for_tiles<Tile>([&](int m, int t) { place.write(m, t, sums[m][t]); });
    } else {
        store();
    }
}

// Adds the partial sums of split tiles in order. Grid: [kM kN, split tiles].
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) add_segments_kernel(const __grid_constant__ OrderedWork a) {
    start_next();
    wait_for_previous();
    const int tile = a.plan.n_whole + blockIdx.y;
    float total[4] = {};
    for (int slot = 0; slot < a.plan.slots(); ++slot) {
        const float4 sums = sums_at<Tile>(a, tile, slot)[blockIdx.x * Tile::kThreads];
        total[0] += sums.x;
        total[1] += sums.y;
        total[2] += sums.z;
        total[3] += sums.w;
    }
    TilePlace<Tile>(a, tile).write(blockIdx.x / Tile::kN, blockIdx.x % Tile::kN, total);
}

template <class Tile>
void launch(const OrderedWork& work, Stream& stream) {
    constexpr auto* kKernel = multiply_ordered_kernel<Tile>;
    static const bool raised =
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes) == cudaSuccess;
    static_cast<void>(raised);
    queue(kKernel, work.plan.n_blocks(), Tile::kThreads, Tile::kSharedBytes, stream, work);
    if (work.plan.n_split() > 0) {
        queue(add_segments_kernel<Tile>, dim3(Tile::kM * Tile::kN, work.plan.n_split()), Tile::kThreads, 0, stream,
              work);
    }
}

}  // namespace

void multiply_ordered(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                      float* sums, Stream& stream) {
    count_blocks(products.matrices, OrderedPlan::kRows);
    const OrderedWork work{products, x, reinterpret_cast<float4*>(sums), plan, n_cols, n};
    switch (plan.columns) {
    case OrderedTile32::kColumns:
        return launch<OrderedTile32>(work, stream);
    case OrderedTile64::kColumns:
        return launch<OrderedTile64>(work, stream);
    case OrderedTile128::kColumns:
        return launch<OrderedTile128>(work, stream);
    default:
        return launch<OrderedTile256>(work, stream);
    }
}

}  // namespace lk::cuda
