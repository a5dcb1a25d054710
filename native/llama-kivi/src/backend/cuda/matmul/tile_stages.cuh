// The stages of the tiled GEMM; tile.cu calls them.
#pragma once

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/matmul/row_decoder.cuh"
#include "backend/cuda/matmul/tile_work.cuh"

namespace lk::cuda {

namespace {

// A thread block and its units. Of every 16 rows and 8 tokens of its warp, a lane has rows g and g + 8 and tokens 2 j
// and 2 j + 1.
template <WeightType kType, int kTiles>
struct TileBlock {
    using S = Step<kType>;
    static constexpr int kRows = TilePlan::kRows;
    static constexpr int kColumns = 8 * kTiles;
    static constexpr int kStageBytes = S::kStep.stage_bytes(kTiles);
    static constexpr int kEach = kStepElements / kSharers;
    static_assert(kEach == 64);               // two chunks
    static constexpr int kSums = 8 * kTiles;  // per lane
    static constexpr int kKept = kSums / 4;   // per lane, after the exchange
    using Accumulators = float[2][kTiles][4];

    const TileWork& a;
    int begin;  // units [begin, end) of the block
    int end;
    bool has_rest;  // rows end inside a step
    int warp_row;
    int sharer;
    int g;
    int j;
    int first;  // the lane's first element in a step

    // Stage "load tile", weights: each group of kLanes lanes copies one row at a time, one piece per lane.
    __device__ __forceinline__ void fetch_weights(const Place& at, uint8_t* stage) const {
        constexpr int kLanes = S::kPieces <= 8 ? 8 : S::kPieces <= 16 ? 16 : 32;
        constexpr int kTogether = kThreads / kLanes;  // rows copied at once
        const int piece = threadIdx.x % kLanes;
        if (piece >= S::kPieces) {
            return;
        }
        const int row = threadIdx.x / kLanes;
        const int n_rows = a.products.n_rows[at.which] - at.first_row - row;
        const uint8_t* const w = a.products.w[at.which];
        const uint8_t* from = w + static_cast<size_t>(at.first_row + row) * a.row_bytes + at.step * S::kBytes;
        uint8_t* const to = stage + row * S::kPitch + 16 * piece;
        const auto before = [&] {
            return S::kAlign < 16 ? static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16) : 0;
        };
        if (n_rows >= kRows && !(has_rest && at.step + 1 == a.plan.n_steps)) {
#pragma unroll
            for (int r = 0; r < kRows; r += kTogether) {
                copy_async(to + r * S::kPitch, from + (16 * piece - before()));
                from += kTogether * a.row_bytes;
            }
            return;
        }
        // The last tile may lack rows; after the end of a row, copy zeros.
        const int left = static_cast<int>(a.row_bytes) - at.step * S::kBytes - 16 * piece;
        for (int r = 0; r < min(kRows, n_rows); r += kTogether) {
            const int bytes = min(max(left + before(), 0), 16);
            copy_async_some(to + r * S::kPitch, bytes > 0 ? from + (16 * piece - before()) : w, bytes);
            from += kTogether * a.row_bytes;
        }
    }

    // Stage "load tile", tokens.
    __device__ __forceinline__ void fetch_columns(const Place& at, uint8_t* stage) const {
        constexpr int kLanes = kStepElements / 8;
        constexpr int kTogether = kThreads / kLanes;  // tokens copied at once
        const int column = threadIdx.x / kLanes;
        const int piece = threadIdx.x % kLanes;
        const int element = at.step * kStepElements + 8 * piece;
        const int bytes = element < a.n_cols ? 16 : 0;
        const uint16_t* from = a.x + static_cast<size_t>(column) * a.n_cols + (bytes > 0 ? element : 0);
        uint8_t* const to = stage + S::kWeightBytes + column * S::kColumnPitch + 16 * piece;
#pragma unroll
        for (int c = 0; c < kColumns; c += kTogether) {
            if (column < a.n - c) {
                copy_async_some(to + c * S::kColumnPitch, from, bytes);
            }
            from += kTogether * a.n_cols;
        }
    }

    // Stage "decode": starts decoding the lane's rows of a unit.
    __device__ __forceinline__ void begin_unit(const Place& at, const uint8_t* stage,
                                               RowDecoder<kType>& decoder) const {
        unsigned before = 0;  // bytes before the row in its first piece
        if constexpr (S::kAlign < 16) {
            before = static_cast<unsigned>(reinterpret_cast<uintptr_t>(a.products.w[at.which])) + at.step * S::kBytes +
                     (at.first_row + warp_row + g) * static_cast<unsigned>(a.row_bytes);
        }
        const uint8_t* rows[4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            rows[r] = stage + (warp_row + 8 * r + g) * S::kPitch +
                      (S::kAlign < 16 ? (before + 8 * r * static_cast<unsigned>(a.row_bytes)) % 16 : 0);
        }
        decoder.begin(rows, first);
    }

    // Stage "multiply": a chunk of the rows by the same chunk of the tokens.
    __device__ __forceinline__ void multiply_chunk(const uint8_t* stage, int chunk, const uint4 (&rows)[4],
                                                   Accumulators& acc) const {
        constexpr int kAtOnce = kTiles < 4 ? kTiles : 4;
        const uint8_t* const columns = stage + S::kWeightBytes + g * S::kColumnPitch + 2 * first + 64 * chunk;
#pragma unroll
        for (int first_tile = 0; first_tile < kTiles; first_tile += kAtOnce) {
            uint4 b[kAtOnce];
#pragma unroll
            for (int t = 0; t < kAtOnce; ++t) {
                b[t] = *reinterpret_cast<const uint4*>(columns + 8 * (first_tile + t) * S::kColumnPitch);
            }
            // In this order no mma depends on the preceding one.
#pragma unroll
            for (int i = 0; i < 2 * kAtOnce; ++i) {
                const uint4& low = rows[i % 2 * 2];
                const uint4& high = rows[i % 2 * 2 + 1];
                multiply(acc[i % 2][first_tile + i / 2], low.x, high.x, low.y, high.y, b[i / 2].x, b[i / 2].y);
            }
#pragma unroll
            for (int i = 0; i < 2 * kAtOnce; ++i) {
                const uint4& low = rows[i % 2 * 2];
                const uint4& high = rows[i % 2 * 2 + 1];
                multiply(acc[i % 2][first_tile + i / 2], low.z, high.z, low.w, high.w, b[i / 2].z, b[i / 2].w);
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
    // Each sharer sends its partner (sharer ^ bit) the half of its sums that the partner keeps.
    template <int kHalf>
    __device__ __forceinline__ void exchange(float* shared_sums, int bit, float (&sum)[kSums]) const {
        constexpr int kAtOnce = kHalf < 16 ? kHalf : 16;
        static_assert(kAtOnce * kThreads * sizeof(float) <= kStageBytes);
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
