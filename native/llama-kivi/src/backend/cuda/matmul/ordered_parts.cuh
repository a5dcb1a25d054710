// The parts of multiply_ordered: copies, operands and sums of a tile. ordered.cu joins them.
#pragma once

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/load_matrices.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/matmul/ordered_work.cuh"

namespace lk::cuda {

namespace {

template <class Tile>
using TileSums = float[Tile::kM][Tile::kN][4];

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

}  // namespace

}  // namespace lk::cuda
