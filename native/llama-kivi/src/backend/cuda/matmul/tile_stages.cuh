// The stages of the tiled GEMM; tile.cu calls them.
#pragma once

#include <algorithm>

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/matmul/row_decoder.cuh"
#include "backend/cuda/matmul/tile_work.cuh"

namespace lk::cuda {

namespace {

// A thread's copies of one unit to shared memory.
struct TileCopies {
    const uint8_t* weights;  // of the first row
    uint8_t* to;             // in shared memory
    int rows;                // rows of weights from the first one on
    const uint16_t* columns;
    uint8_t* columns_to;
    int tokens;  // from the first one on
};

// A thread block and its units. Of every 16 rows and 8 tokens of its warp, a lane has rows g and g + 8 and tokens 2 j
// and 2 j + 1.
template <WeightType kType, int kTiles>
struct TileBlock {
    using S = Step<kType>;
    using Warps = TileWarps<kTiles>;
    static constexpr int kThreads = Warps::kThreads;
    static constexpr int kRowWarps = Warps::kRowWarps;
    static constexpr int kWarpRows = Warps::kWarpRows;
    static constexpr int kRowTiles = kWarpRows / 16;  // per warp
    static constexpr int kRows = TilePlan::kRows;
    static constexpr int kColumns = 8 * kTiles;
    static constexpr int kStageBytes = S::kStep.stage_bytes(kTiles);
    static constexpr int kEach = kStepElements / kSharers;
    static_assert(kEach == 64);                              // two chunks
    static constexpr int kSums = kWarpRows * kColumns / 32;  // per lane
    static constexpr int kKept = kSums / 4;                  // per lane, after the exchange
    // Rows of super blocks end with a step: what is copied after their end is not decoded.
    static constexpr bool kWholeSteps = block_elements(kType) == kStepElements;
    using Accumulators = float[kRowTiles][kTiles][4];
    using Decoder = RowDecoder<kType, kWarpRows, S::kPitch>;

    // Lanes that copy a row, one piece each, and rows copied at once; the same for tokens.
    static constexpr int kRowLanes = S::kPieces <= 8 ? 8 : S::kPieces <= 16 ? 16 : 32;
    static constexpr int kRowsAtOnce = kThreads / kRowLanes;
    static constexpr int kColumnLanes = kStepElements / 8;
    static constexpr int kColumnsAtOnce = kThreads / kColumnLanes;
    static constexpr int kRowCopies = kRows / kRowsAtOnce;
    static constexpr int kColumnCopies = kColumns < kColumnsAtOnce ? 1 : kColumns / kColumnsAtOnce;
    static_assert(kRowsAtOnce % 8 == 0);  // the rows of a thread have the same alignment, as blocks have even sizes

    const TileWork& a;
    int begin;  // units [begin, end) of the block
    int end;
    int warp_row;
    int sharer;
    int g;
    int j;
    int first;       // the lane's first element in a step
    unsigned upper;  // Decoder::upper_bytes()

    // Bytes before a row of the unit in its first 16-byte piece. Rows at distances of 8 have the same.
    __device__ __forceinline__ unsigned bytes_before(const Place& at, int row) const {
        if constexpr (S::kAlign == 16) {
            return 0;
        }
        const unsigned address = static_cast<unsigned>(reinterpret_cast<uintptr_t>(a.products.w[at.which])) +
                                 static_cast<unsigned>(at.first_row + row) * static_cast<unsigned>(a.row_bytes) +
                                 static_cast<unsigned>(at.step * S::kBytes);
        return address % 16;
    }

    // Whether rows end inside the unit's step.
    __device__ __forceinline__ bool is_partial(const Place& at) const {
        return !kWholeSteps && (at.step + 1) * kStepElements > a.n_cols;
    }

    // Stage "load tile": prepares the thread's copies of a unit; none if not `wanted` or if the unit is partial.
    __device__ __forceinline__ TileCopies copies(const Place& at, uint8_t* stage, bool wanted) const {
        TileCopies c;
        wanted = wanted && !is_partial(at);
        const int row = threadIdx.x / kRowLanes;
        const int piece = threadIdx.x % kRowLanes;
        const int from = at.step * S::kBytes + 16 * piece - static_cast<int>(bytes_before(at, row));
        const int row_bytes = static_cast<int>(a.row_bytes);
        const bool copied = wanted && piece < S::kPieces && from < row_bytes;
        c.weights = a.products.w[at.which] + (static_cast<int64_t>(at.first_row + row) * row_bytes + from);
        c.to = stage + row * S::kPitch + 16 * piece;
        c.rows = copied ? a.products.n_rows[at.which] - at.first_row - row : 0;
        const int token = threadIdx.x / kColumnLanes;
        const int column_piece = threadIdx.x % kColumnLanes;
        c.columns = a.x + (static_cast<int64_t>(token) * a.n_cols + (at.step * kStepElements + 8 * column_piece));
        c.columns_to = columns_to(stage, token, column_piece);
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

    // Starts the copies of weights of a partial unit, with zeros after the end of a row.
    __device__ __forceinline__ void copy_partial_weights(const Place& at, uint8_t* stage) const {
        const uint8_t* const w = a.products.w[at.which];
        const int piece = threadIdx.x % kRowLanes;
#pragma unroll 1
        for (int row = threadIdx.x / kRowLanes; row < kRows; row += kRowsAtOnce) {
            const int from = at.step * S::kBytes + 16 * piece - static_cast<int>(bytes_before(at, row));
            const int bytes = min(max(static_cast<int>(a.row_bytes) - from, 0), 16);
            if (piece < S::kPieces && at.first_row + row < a.products.n_rows[at.which]) {
                const int64_t start = static_cast<int64_t>(at.first_row + row) * static_cast<int>(a.row_bytes) + from;
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

    // Stage "decode": starts decoding the lane's rows of a unit.
    __device__ __forceinline__ void begin_unit(const Place& at, const uint8_t* stage, Decoder& decoder) const {
        const int scale_row = warp_row + Decoder::scale_row();
        const uint8_t* const rows = stage + (warp_row + g) * S::kPitch + bytes_before(at, warp_row + g);
        const uint8_t* const scales = stage + scale_row * S::kPitch + bytes_before(at, scale_row);
        decoder.begin({rows, scales, first}, upper);
    }

    // Loads a lane's elements of a chunk of token g of tile t.
    template <int kChunk>
    __device__ __forceinline__ uint4 load_columns(const uint8_t* stage, int t) const {
        const int piece = first / 8 + 4 * (kChunk ^ g % 2);
        return *reinterpret_cast<const uint4*>(stage + S::kWeightBytes + (8 * t + g) * S::kColumnBytes + 16 * piece);
    }

    // Stage "multiply": 16 rows by all tokens of the same chunk. kReload: replaces the tokens by chunk kNext of the
    // tokens in `from` once they are used.
    template <bool kReload, int kNext>
    __device__ __forceinline__ void multiply_rows(const uint4 (&rows)[2], uint4 (&columns)[kTiles],
                                                  float (&acc)[kTiles][4], const uint8_t* from) const {
        const uint4& low = rows[0];
        const uint4& high = rows[1];
        // In this order no mma depends on the preceding ones.
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            multiply(acc[t], low.x, high.x, low.y, high.y, columns[t].x, columns[t].y);
        }
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            multiply(acc[t], low.z, high.z, low.w, high.w, columns[t].z, columns[t].w);
            if constexpr (kReload) {
                columns[t] = load_columns<kNext>(from, t);
            }
        }
    }

    // Stage "merge": after `unit`, the block's last unit of the tile, writes the sums to y or merges them with other
    // blocks' sums. stage: scratch.
    __device__ __forceinline__ void finish_tile(const Place& at, int unit, uint8_t* stage, Accumulators& acc) const {
        float sum[kSums];
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            sum[i] = acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4];
            acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4] = 0;
        }
        // Adds up four sharers in two exchanges.
        auto* const shared_sums = reinterpret_cast<float*>(stage);
        exchange<kSums / 2>(shared_sums, 2, sum);
        exchange<kSums / 4>(shared_sums, 1, sum);
        const int first_sum = ((sharer & 2) != 0 ? kSums / 2 : 0) + ((sharer & 1) != 0 ? kKept : 0);
        const int n_rows = a.products.n_rows[at.which];
        float* const y = a.products.y[at.which];
        const bool add = a.products.add[at.which];
        // Stage "store".
        const auto store = [&] {
#pragma unroll
            for (int k = 0; k < kKept; ++k) {
                const int i = first_sum + k;
                const int row = at.first_row + warp_row + i / (4 * kTiles) * 16 + i % 4 / 2 * 8 + g;
                const int column = i / 4 % kTiles * 8 + 2 * j + i % 2;
                if (column < a.n && row < n_rows) {
                    float& out = y[static_cast<size_t>(column) * n_rows + row];
                    out = add ? out + sum[k] : sum[k];
                }
            }
        };
        const int tile_begin = at.tile * a.plan.n_steps;
        const int n_done = unit + 1 - max(begin, tile_begin);
        if (n_done == a.plan.n_steps) {
            store();
            return;
        }
        if (!add_blocks(at, tile_begin, n_done, sum)) {
            return;
        }
        store();
        if (threadIdx.x == 0) {
            a.counts[at.tile] = 0;
        }
    }

private:
    // A piece of 8 elements of a token. Neighbouring tokens have opposite halves of every 128 bytes swapped, so that
    // they start in different banks.
    __device__ static __forceinline__ uint8_t* columns_to(uint8_t* stage, int token, int piece) {
        return stage + S::kWeightBytes + token * S::kColumnBytes + 16 * (piece ^ token % 2 * 4);
    }

    // Each sharer sends its partner (sharer ^ bit) the half of its sums that the partner keeps.
    template <int kHalf>
    __device__ __forceinline__ void exchange(float* shared_sums, int bit, float (&sum)[kSums]) const {
        constexpr int kRoom = kStageBytes / (kThreads * static_cast<int>(sizeof(float)));
        constexpr int kAtOnce = std::min(kHalf, kRoom >= 32 ? 32 : kRoom >= 16 ? 16 : 8);
        static_assert(kAtOnce <= kRoom && kHalf % kAtOnce == 0);
        const bool upper = (sharer & bit) != 0;
        const int partner = threadIdx.x + (upper ? -bit : bit) * kRowWarps * 32;
#pragma unroll
        for (int k = 0; k < kHalf; k += kAtOnce) {
            __syncthreads();
#pragma unroll
            for (int i = k; i < k + kAtOnce; ++i) {
                shared_sums[(i - k) * kThreads + threadIdx.x] = upper ? sum[i] : sum[kHalf + i];
            }
            __syncthreads();
#pragma unroll
            for (int i = k; i < k + kAtOnce; ++i) {
                sum[i] = (upper ? sum[kHalf + i] : sum[i]) + shared_sums[(i - k) * kThreads + partner];
            }
        }
    }

    // Stores the block's sums. The last block of the tile to arrive adds the sums of all blocks and returns true.
    __device__ __forceinline__ bool add_blocks(const Place& at, int tile_begin, int n_done, float (&sum)[kSums]) const {
        // A block has at most two partial tiles: its first and its last.
        const auto sum_at = [&](int block, int k) {
            const int slot = 2 * block + (a.plan.shares.begin(block) <= tile_begin);
            return reinterpret_cast<float2*>(a.sums + static_cast<size_t>(slot) * TilePlan::kSums) + k * kThreads +
                   threadIdx.x;
        };
#pragma unroll
        for (int k = 0; k < kKept / 2; ++k) {
            __stcg(sum_at(blockIdx.x, k), make_float2(sum[2 * k], sum[2 * k + 1]));
        }
        __syncthreads();
        bool is_last = false;
        if (threadIdx.x == 0) {
            __threadfence();
            is_last = atomicAdd(&a.counts[at.tile], n_done) == a.plan.n_steps - n_done;
            __threadfence();
        }
        if (__syncthreads_or(is_last) == 0) {
            return false;
        }
#pragma unroll
        for (int k = 0; k < kKept; ++k) {
            sum[k] = 0;
        }
        const int last_block = a.plan.shares.block_of(tile_begin + a.plan.n_steps - 1);
#pragma unroll 2
        for (int block = a.plan.shares.block_of(tile_begin); block <= last_block; ++block) {
#pragma unroll
            for (int k = 0; k < kKept / 2; ++k) {
                const float2 v = __ldcg(sum_at(block, k));
                sum[2 * k] += v.x;
                sum[2 * k + 1] += v.y;
            }
        }
        return true;
    }
};

}  // namespace

}  // namespace lk::cuda
