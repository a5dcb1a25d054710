// Flash attention with wgmma: its shape and shared memory.
#pragma once

#include "backend/cuda/attention/flash_correction.cuh"
#include "backend/cuda/device/phase_barrier.cuh"

namespace lk::cuda {

namespace {

// A compiled shape of the kernel. A warp that multiplies has kRowTiles times 16 query rows; WarpTile and Output are of
// one of them. kHalves: all rows of keys and values are halves.
template <int kHeadSize, bool kOnlyHalves>
struct WgmmaShape {
    static constexpr bool kHalves = kOnlyHalves;
    static constexpr int kStages = kHalves ? 4 : 2;
    static_assert((kStages & (kStages - 1)) == 0);
    static constexpr int kD = kHeadSize;
    static constexpr bool kSplit = false;
    static constexpr int kWarps = 8;  // that multiply; the loading warps follow them
    static constexpr int kLoaders = 128;
    static constexpr int kThreads = 32 * kWarps + kLoaders;
    static constexpr int kRows = kWgmmaRows;  // query rows per thread block
    static constexpr int kRowTiles = kRows / (16 * kWarps);
    static constexpr int kM = 1;
    static constexpr int kN = kTile / 8;
    static constexpr int kStride = kD + 8;  // of the squares of scales
    using Rows = SwizzledRows<kTile>;       // of keys and values
    using Queries = SwizzledRows<kRows>;
    static __device__ int loader() { return Rows::thread(); }
    // A tile's buffers, and the parity of their barriers' phase.
    static __device__ int stage(int tile) { return tile % kStages; }
    static __device__ unsigned parity(int tile) { return static_cast<unsigned>(tile) / kStages % 2; }
    // First row of a warp's row tile: the four warps of a warpgroup have consecutive rows.
    static __device__ int first_row(int warp, int m) { return warp / 4 * (kRows / 2) + 64 * m + warp % 4 * 16; }

    // Registers of a thread; together no more than at the launch, which gives every thread 168.
    static constexpr int kMultiplyingRegisters = 208;
    static constexpr int kLoadingRegisters = 88;
    static_assert(2 * kMultiplyingRegisters + kLoadingRegisters <= 3 * 168);
};

// What the warpgroups tell each other, in shared memory.
template <class S>
struct Exchange {
    BlockPlan plan;
    int rows[4];                       // of QueryRows: group, kv_head, first, n
    float k_factor;                    // of the scales of keys
    int planned[2];                    // tiles that all loading warps know of, by index % 2
    int corrected[BlockPlan::kTiles];  // the first of the tiles corrected with this one, by index % kTiles
    PhaseBarrier full_keys[S::kStages];
    PhaseBarrier full_values[S::kStages];
    PhaseBarrier empty_keys[S::kStages];
    PhaseBarrier empty_values[S::kStages];

    __device__ QueryRows query_rows(const AttentionWork& a, const SegmentWork& seg) const {
        return {a, seg, rows[0], rows[1], rows[2], rows[3]};
    }
};

// Shared memory. Offsets in bytes; the queries come first.
template <class S>
struct WgmmaMemory {
    static constexpr int kSide = kTile * S::kD * 2;  // bytes of a tile's keys or values
    static constexpr int kKeys = S::kRows * S::kD * 2;
    static constexpr int kValues = kKeys + S::kStages * kSide;
    static constexpr int kRawKeys = kValues + S::kStages * kSide;  // codes of two tiles; see fetch_codes
    static constexpr int kRawKeyBytes = S::kHalves ? 0 : FlashCodeBytes<S::kD>::kKeys;
    static constexpr int kRawValueBytes = S::kHalves ? 0 : FlashCodeBytes<S::kD>::kValues;
    static constexpr int kRawValues = kRawKeys + 2 * kRawKeyBytes;
    static constexpr int kRefined = kRawValues + 2 * kRawValueBytes;          // uint16 [D]; see load_keys
    static constexpr int kSquares = kRefined + (S::kHalves ? 0 : 2 * S::kD);  // half [2, 8 token groups, stride]
    static constexpr int kSquareBytes = CorrectedTiles::kColumns * S::kStride * 2;
    static constexpr int kCorrections = kSquares + (S::kHalves ? 0 : 2 * kSquareBytes);  // float [rows, 8 token groups]
    static constexpr int kBounds =
        kCorrections + (S::kHalves ? 0 : S::kRows * CorrectedTiles::kColumns * 4);  // RowBound [rows]
    static constexpr int kExchange = (kBounds + S::kRows * static_cast<int>(sizeof(RowBound)) + 7) / 8 * 8;
    static constexpr int kBytes = kExchange + static_cast<int>(sizeof(Exchange<S>));
    static_assert(kBytes <= 227 << 10);  // of a block on compute capability 9.0

    char* first;  // at a multiple of 1,024 bytes

    __device__ typename S::Queries queries() const { return {reinterpret_cast<uint16_t*>(first)}; }
    __device__ typename S::Rows keys(int tile) const {
        return {reinterpret_cast<uint16_t*>(first + kKeys + S::stage(tile) * kSide)};
    }
    __device__ typename S::Rows values(int tile) const {
        return {reinterpret_cast<uint16_t*>(first + kValues + S::stage(tile) * kSide)};
    }
    __device__ uint8_t* raw_keys(int tile) const {
        return reinterpret_cast<uint8_t*>(first + kRawKeys + tile % 2 * kRawKeyBytes);
    }
    __device__ uint8_t* raw_values(int tile) const {
        return reinterpret_cast<uint8_t*>(first + kRawValues + tile % 2 * kRawValueBytes);
    }
    __device__ uint16_t* refined_at() const { return reinterpret_cast<uint16_t*>(first + kRefined); }
    // Of the tiles that are corrected with tile `first_tile`. They may be written before the preceding ones are read.
    __device__ uint16_t* squares(int first_tile) const {
        return reinterpret_cast<uint16_t*>(first + kSquares + first_tile % 2 * kSquareBytes);
    }
    __device__ float* corrections(int row) const {
        return reinterpret_cast<float*>(first + kCorrections) + row * CorrectedTiles::kColumns;
    }
    __device__ RowBound* bounds() const { return reinterpret_cast<RowBound*>(first + kBounds); }
    __device__ Exchange<S>& exchange() const { return *reinterpret_cast<Exchange<S>*>(first + kExchange); }
};

template <class S>
__device__ bool has_correction(const AttentionWork& a, const Tile& tile) {
    return !S::kHalves && a.k.format.score_correction && tile.k.coded();
}

}  // namespace

}  // namespace lk::cuda
