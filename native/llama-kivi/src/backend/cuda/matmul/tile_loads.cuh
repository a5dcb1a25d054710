// Stage "load tile" of the tiled GEMM: a thread's asynchronous copies of weights and tokens to shared memory.
#pragma once

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/tile_work.cuh"

namespace lk::cuda {

namespace {

// What a thread copies, of the unit to be copied next. Advanced from unit to unit, which takes fewer instructions than
// finding the matrix and multiplying by the rows' bytes.
struct TileSource {
    const uint8_t* weights;  // of the first row; not rounded down to 16 bytes
    int rows;                // of the tile, from the first one on
    const uint16_t* columns;
};

// A thread's copies of one unit to shared memory.
struct TileCopies {
    const uint8_t* weights;  // of the first row
    uint8_t* to;             // in shared memory
    int rows;                // rows of weights from the first one on
    const uint16_t* columns;
    uint8_t* columns_to;
    int tokens;  // from the first one on
};

template <WeightType kType, int kTiles>
struct TileLoads {
    using S = Step<kType>;
    static constexpr int kThreads = TileWarps<kTiles>::kThreads;
    static constexpr int kRows = TilePlan::kRows;
    static constexpr int kColumns = 8 * kTiles;
    static constexpr int kStageBytes = S::kStep.stage_bytes(kTiles);
    static constexpr int kMostStages = tile_stages(kType, kColumns, TilePlan::kMostSharedBytes);
    // Rows of super blocks end with a step: what is copied after their end is not decoded.
    static constexpr bool kWholeSteps = block_elements(kType) == kStepElements;
    // Lanes that copy a row, one piece each, and rows copied at once; the same for tokens.
    static constexpr int kRowLanes = S::kPieces <= 8 ? 8 : S::kPieces <= 16 ? 16 : 32;
    static constexpr int kRowsAtOnce = kThreads / kRowLanes;
    static constexpr int kColumnLanes = kStepElements / 8;
    static constexpr int kColumnsAtOnce = kThreads / kColumnLanes;
    static constexpr int kRowCopies = kRows / kRowsAtOnce;
    static constexpr int kColumnCopies = kColumns < kColumnsAtOnce ? 1 : kColumns / kColumnsAtOnce;
    static_assert(kRowsAtOnce % 8 == 0);  // the rows of a thread have the same alignment, as blocks have even sizes

    const TileWork& a;

    // Bytes before a row of the unit in its first 16-byte piece. Rows at distances of 8 have the same.
    __device__ __forceinline__ unsigned bytes_before(const Place& at, const TileRows& rows, int row) const {
        if constexpr (S::kAlign == 16) {
            return 0;
        }
        const unsigned address = static_cast<unsigned>(reinterpret_cast<uintptr_t>(a.products.w[rows.which])) +
                                 static_cast<unsigned>(rows.first + row) * static_cast<unsigned>(a.row_bytes) +
                                 static_cast<unsigned>(at.step * S::kBytes);
        return address % 16;
    }

    // Whether rows end inside the unit's step.
    __device__ __forceinline__ bool is_partial(const Place& at) const {
        return !kWholeSteps && (at.step + 1) * kStepElements > a.n_cols;
    }

    __device__ __forceinline__ TileSource source(const Place& at) const {
        const TileRows rows(a.products, at.tile);
        const int row = threadIdx.x / kRowLanes;
        const int64_t from = at.step * S::kBytes + 16 * static_cast<int>(threadIdx.x % kRowLanes);
        const int token = threadIdx.x / kColumnLanes;
        const int element = at.step * kStepElements + 8 * static_cast<int>(threadIdx.x % kColumnLanes);
        return {
            a.products.w[rows.which] + (static_cast<int64_t>(rows.first + row) * static_cast<int>(a.row_bytes) + from),
            a.products.n_rows[rows.which] - rows.first - row, a.x + (static_cast<int64_t>(token) * a.n_cols + element)};
    }

    // Advances to the next unit.
    __device__ __forceinline__ void advance(Place& at, TileSource& from) const {
        at.advance(a.plan);
        if (at.step == 0) {
            from = source(at);
        } else {
            from.weights += S::kBytes;
            from.columns += kStepElements;
        }
    }

    // Prepares the thread's copies of a whole unit; none if not `wanted`.
    __device__ __forceinline__ TileCopies copies(const TileSource& from, uint8_t* stage, bool wanted) const {
        TileCopies c;
        const int row = threadIdx.x / kRowLanes;
        const int piece = threadIdx.x % kRowLanes;
        const int before = S::kAlign == 16 ? 0 : static_cast<int>(reinterpret_cast<uintptr_t>(from.weights) % 16);
        const bool copied = wanted && piece < S::kPieces && 16 * piece - before < S::kBytes;
        c.weights = from.weights - before;
        c.to = stage + row * S::kPitch + 16 * piece;
        c.rows = copied ? from.rows : 0;
        const int token = threadIdx.x / kColumnLanes;
        c.columns = from.columns;
        c.columns_to = columns_to(stage, token, threadIdx.x % kColumnLanes);
        c.tokens = wanted && token < kColumns ? a.n - token : 0;
        return c;
    }

    // Starts part kPart of kParts of the copies of weights.
    template <int kPart, int kParts>
    __device__ __forceinline__ void copy_weights(const TileCopies& c) const {
#pragma unroll
        for (int k = kPart * kRowCopies / kParts; k < (kPart + 1) * kRowCopies / kParts; ++k) {
            copy_async_if(k * kRowsAtOnce < c.rows, c.to + k * kRowsAtOnce * S::kPitch,
                          c.weights + static_cast<int64_t>(k * kRowsAtOnce) * static_cast<int>(a.row_bytes));
        }
    }

    // The same of tokens.
    template <int kPart, int kParts>
    __device__ __forceinline__ void copy_columns(const TileCopies& c) const {
#pragma unroll
        for (int k = kPart * kColumnCopies / kParts; k < (kPart + 1) * kColumnCopies / kParts; ++k) {
            copy_async_if(k * kColumnsAtOnce < c.tokens, c.columns_to + k * kColumnsAtOnce * S::kColumnBytes,
                          c.columns + static_cast<int64_t>(k * kColumnsAtOnce) * a.n_cols);
        }
    }

    // Starts the copies of a unit before the first multiplication; none if not `wanted`. Weights are constant, so those
    // of the first unit need not wait for the preceding kernel. Those of later units wait: copies finish in order, and
    // the first unit's tokens would come after all of them.
    __device__ __forceinline__ void prefetch(const TileSource& from, const Place& at, uint8_t* stage, bool wanted,
                                             bool is_first) const {
        const bool partial = wanted && is_partial(at);
        const TileCopies c = copies(from, stage, wanted && !partial);
        copy_weights<0, 1>(c);
        if (partial) {
            copy_partial_weights(at, stage);
        }
        if (is_first) {
            after_previous();
        }
        copy_columns<0, 1>(c);
        if (partial) {
            copy_partial_columns(at, stage);
        }
        copy_commit();
    }

    // Starts the copies of weights of a partial unit, with zeros after the end of a row.
    __device__ __forceinline__ void copy_partial_weights(const Place& at, uint8_t* stage) const {
        const TileRows rows(a.products, at.tile);
        const uint8_t* const w = a.products.w[rows.which];
        const int piece = threadIdx.x % kRowLanes;
#pragma unroll 1
        for (int row = threadIdx.x / kRowLanes; row < kRows; row += kRowsAtOnce) {
            const int from = at.step * S::kBytes + 16 * piece - static_cast<int>(bytes_before(at, rows, row));
            const int bytes = min(max(static_cast<int>(a.row_bytes) - from, 0), 16);
            if (piece < S::kPieces && rows.first + row < a.products.n_rows[rows.which]) {
                const int64_t start = static_cast<int64_t>(rows.first + row) * static_cast<int>(a.row_bytes) + from;
                copy_async_some(stage + row * S::kPitch + 16 * piece, w + (bytes > 0 ? start : 0), bytes);
            }
        }
    }

    // The same of tokens.
    __device__ __forceinline__ void copy_partial_columns(const Place& at, uint8_t* stage) const {
        const int piece = threadIdx.x % kColumnLanes;
        const int element = at.step * kStepElements + 8 * piece;
        const bool in_row = element < a.n_cols;
#pragma unroll 1
        for (int token = threadIdx.x / kColumnLanes; token < min(a.n, kColumns); token += kColumnsAtOnce) {
            const int64_t from = static_cast<int64_t>(token) * a.n_cols + (in_row ? element : 0);
            copy_async_some(columns_to(stage, token, piece), a.x + from, in_row ? 16 : 0);
        }
    }

private:
    // A piece of 8 elements of a token. Neighbouring tokens have opposite halves of every 128 bytes swapped, so that
    // they start in different banks.
    __device__ static __forceinline__ uint8_t* columns_to(uint8_t* stage, int token, int piece) {
        return stage + S::kWeightBytes + token * S::kColumnBytes + 16 * (piece ^ token % 2 * 4);
    }
};

}  // namespace

}  // namespace lk::cuda
