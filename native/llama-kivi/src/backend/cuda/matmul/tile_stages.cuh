// The stages of the tiled GEMM; tile.cu calls them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "backend/cuda/device/fence.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/matmul/row_decoder.cuh"
#include "backend/cuda/matmul/tile_loads.cuh"
#include "backend/cuda/matmul/tile_work.cuh"

namespace lk::cuda {

namespace {

// A thread block and its units. Of every 16 rows and 8 tokens of its warp, a lane has rows g and g + 8 and tokens 2 j
// and 2 j + 1.
template <WeightType kType, int kTiles>
struct TileBlock : TileLoads<kType, kTiles> {
    using Loads = TileLoads<kType, kTiles>;
    using S = Step<kType>;
    using Loads::a;
    using Loads::advance;
    using Loads::bytes_before;
    using Loads::kColumns;
    using Loads::kRows;
    using Loads::kStageBytes;
    using Loads::kThreads;
    static constexpr int kRowWarps = TileWarps<kTiles>::kRowWarps;
    static constexpr int kWarpRows = TileWarps<kTiles>::kWarpRows;
    static constexpr int kRowTiles = kWarpRows / 16;  // per warp
    static constexpr int kSharers = TileWarps<kTiles>::kSharers;
    static constexpr int kEach = kStepElements / kSharers;
    static_assert(kEach == 64 && kSharers == 4);             // a decoder has two chunks
    static constexpr int kSums = kWarpRows * kColumns / 32;  // per lane
    static constexpr int kKept = kSums / kSharers;           // per lane, after the exchange
    using Accumulators = float[kRowTiles][kTiles][4];
    using Decoder = RowDecoder<kType, kWarpRows, S::kPitch>;

    int begin;  // units [begin, end) of the block
    int end;
    int warp_row;
    int sharer;
    int g;
    int j;
    int first;       // the lane's first element in a step
    unsigned upper;  // Decoder::upper_bytes()

    // This thread's.
    __device__ static TileBlock of_thread(const TileWork& work, int first_unit, int end_unit) {
        const int warp = threadIdx.x / 32;
        const int sharer = warp / kRowWarps;
        const int j = threadIdx.x % 4;
        return {{work},
                first_unit,
                end_unit,
                warp % kRowWarps * kWarpRows,
                sharer,
                static_cast<int>(threadIdx.x % 32 / 4),
                j,
                sharer * kEach + 8 * j,
                Decoder::upper_bytes()};
    }

    // Bytes before the lane's rows in their first pieces, modulo 16; see bytes_before.
    struct BytesBefore {
        unsigned codes;
        unsigned scales;
    };

    __device__ __forceinline__ BytesBefore bytes_before_rows(const Place& at) const {
        if constexpr (S::kAlign == 16) {
            return {0, 0};
        }
        const TileRows rows(a.products, at.tile);
        return {bytes_before(at, rows, warp_row + g), bytes_before(at, rows, warp_row + Decoder::scale_row())};
    }

    // Advances to unit `at` from the one before it.
    __device__ __forceinline__ void advance(const Place& at, BytesBefore& before) const {
        if constexpr (S::kAlign < 16) {
            if (at.step == 0) {
                before = bytes_before_rows(at);
            } else {
                before.codes += S::kBytes;
                before.scales += S::kBytes;
            }
        }
    }

    // Stage "decode": starts decoding the lane's rows of a unit.
    __device__ __forceinline__ void begin_unit(const BytesBefore& before, const uint8_t* stage,
                                               Decoder& decoder) const {
        const uint8_t* const rows = stage + (warp_row + g) * S::kPitch + before.codes % 16;
        const uint8_t* const scales = stage + (warp_row + Decoder::scale_row()) * S::kPitch + before.scales % 16;
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
    // blocks' sums, and clears them. stage: scratch.
    __device__ __forceinline__ void finish_tile(const Place& at, int unit, uint8_t* stage, Accumulators& acc) const {
        float sum[kSums];
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            sum[i] = acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4];
        }
        exchange<kSums / 2>(stage, kSharers / 2, sum);
        exchange<kSums / 4>(stage, 1, sum);
        const int tile_begin = at.tile * a.plan.n_steps;
        const int n_done = unit + 1 - max(begin, tile_begin);
        if (n_done == a.plan.n_steps) {
            store(at, sum);
        } else if (add_blocks(at, tile_begin, n_done, sum)) {
            store(at, sum);
            if (threadIdx.x == 0) {
                a.counts[at.tile] = 0;
            }
        }
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4] = 0;
        }
    }

private:
    // Stage "store": writes the sums that the sharer kept to y.
    __device__ __forceinline__ void store(const Place& at, float (&sum)[kSums]) const {
        const TileRows tile(a.products, at.tile);
        const int n_rows = a.products.n_rows[tile.which];
        // Element of the first sum: sums are ordered by 16 rows, 8 tokens, 8 rows and token.
        const int first_sum = sharer * kKept;
        const int row = tile.first + warp_row + first_sum / (4 * kTiles) * 16 + first_sum % 4 / 2 * 8 + g;
        const int token = first_sum % (4 * kTiles) / 4 * 8 + 2 * j;
        float* const y = a.products.y[tile.which] + (static_cast<int64_t>(token) * n_rows + row);
        const auto each = [&](const auto& apply) {
#pragma unroll
            for (int k = 0; k < kKept; ++k) {
                const int tokens = k / 4 * 8 + k % 2;
                const int rows = k % 4 / 2 * 8;
                if (token + tokens < a.n && row + rows < n_rows) {
                    apply(y[static_cast<int64_t>(tokens) * n_rows + rows], sum[k]);
                }
            }
        };
        if (a.products.add[tile.which]) {
            each([](const float& out, float& s) { s = out + s; });  // all loads before the first store
        }
        each([](float& out, float s) { out = s; });
    }

    // Each sharer sends its partner (sharer ^ bit) the half of its sums that the partner keeps.
    template <int kHalf>
    __device__ __forceinline__ void exchange(uint8_t* scratch, int bit, float (&sum)[kSums]) const {
        using Vector = Floats<kHalf>;
        constexpr int kWidth = sizeof(Vector) / sizeof(float);
        constexpr int kRoom = kStageBytes / (kThreads * static_cast<int>(sizeof(float)));
        constexpr int kAtOnce = std::min(kHalf, kRoom >= 32 ? 32 : kRoom >= 16 ? 16 : 8);
        static_assert(kAtOnce <= kRoom && kHalf % kAtOnce == 0 && kAtOnce % kWidth == 0);
        auto* const sent = reinterpret_cast<Vector*>(scratch) + threadIdx.x;
        const bool upper = (sharer & bit) != 0;
        const Vector* const received = sent + (upper ? -bit : bit) * kRowWarps * 32;
        // A branch per warp costs less than selecting each sum.
        const auto send = [&](const float* sums) {
#pragma unroll
            for (int i = 0; i < kAtOnce; i += kWidth) {
                sent[i / kWidth * kThreads] = vector_of<Vector>(sums + i);
            }
        };
        const auto add = [&](float* to, const float* sums) {
#pragma unroll
            for (int i = 0; i < kAtOnce; i += kWidth) {
                add_vector(to + i, sums + i, received[i / kWidth * kThreads]);
            }
        };
#pragma unroll
        for (int k = 0; k < kHalf; k += kAtOnce) {
            __syncthreads();
            if (upper) {
                send(sum + k);
            } else {
                send(sum + kHalf + k);
            }
            __syncthreads();
            if (upper) {
                add(sum + k, sum + kHalf + k);
            } else {
                add(sum + k, sum + k);
            }
        }
    }

    // Stores the block's sums. The last block of the tile to arrive adds the sums of all blocks and returns true.
    __device__ __forceinline__ bool add_blocks(const Place& at, int tile_begin, int n_done, float (&sum)[kSums]) const {
        using Vector = Floats<kKept>;
        constexpr int kWidth = sizeof(Vector) / sizeof(float);
        // A block has at most two partial tiles: its first and its last.
        const auto sum_at = [&](int block, int k) {
            const int slot = 2 * block + (a.plan.shares.begin(block) <= tile_begin);
            return reinterpret_cast<Vector*>(a.sums + static_cast<size_t>(slot) * TilePlan::kSums) +
                   k / kWidth * kThreads + threadIdx.x;
        };
#pragma unroll
        for (int k = 0; k < kKept; k += kWidth) {
            __stcg(sum_at(blockIdx.x, k), vector_of<Vector>(sum + k));
        }
        // The divisions of block_of overlap with the stores; after the barrier, they would delay the loads.
        int from = a.plan.shares.block_of(tile_begin);
        int last_block = a.plan.shares.block_of(tile_begin + a.plan.n_steps - 1);
        asm volatile("" : "+r"(from), "+r"(last_block));
        __syncthreads();
        bool is_last = false;
        if (threadIdx.x == 0) {
            fence_device();
            is_last = atomicAdd(&a.counts[at.tile], n_done) == a.plan.n_steps - n_done;
            if (is_last) {
                fence_device();
            }
        }
        if (__syncthreads_or(is_last) == 0) {
            return false;
        }
#pragma unroll
        for (int k = 0; k < kKept; ++k) {
            sum[k] = 0;
        }
        constexpr int kBatch = kKept > 16 ? 1 : 4;  // blocks whose sums are loaded at once
#pragma unroll(kBatch == 1 ? 2 : 1)
        for (; from <= last_block; from += kBatch) {
            Vector loaded[kBatch][kKept / kWidth];
#pragma unroll
            for (int b = 0; b < kBatch; ++b) {
                if (from + b <= last_block) {
#pragma unroll
                    for (int k = 0; k < kKept; k += kWidth) {
                        loaded[b][k / kWidth] = __ldcg(sum_at(from + b, k));
                    }
                }
            }
#pragma unroll
            for (int b = 0; b < kBatch; ++b) {
                if (from + b <= last_block) {
#pragma unroll
                    for (int k = 0; k < kKept; k += kWidth) {
                        add_vector(sum + k, sum + k, loaded[b][k / kWidth]);
                    }
                }
            }
        }
        return true;
    }
};

}  // namespace

}  // namespace lk::cuda
