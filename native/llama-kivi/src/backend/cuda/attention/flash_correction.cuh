// Flash attention, score correction (PageFormat::score_correction). Per token group of coded keys, the scores of a row
// are reduced by the sum over the channels of (query * scale)^2 / 24. The corrections of several tiles are computed at
// once, because the matrix unit has eight columns.
#pragma once

#include "backend/cuda/attention/flash_frames.cuh"
#include "backend/cuda/device/mma.cuh"

namespace lk::cuda {

namespace {

__device__ void load_matrices(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

__device__ void load_transposed(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

// The tiles whose corrections are known. Either each has one token group, or it is one tile with up to four.
class CorrectedTiles {
public:
    static constexpr int kColumns = 8;

    CorrectedTiles() = default;
    // first: the first of the tiles.
    __device__ explicit CorrectedTiles(int first) : first_(first) {}

    __device__ bool contains(int index) const { return index < end_; }
    __device__ int first() const { return first_; }

    // Squares the scales of the next tiles. index, planned: the current tile, and the one after the last that every
    // warp knows. squares: half [8, stride].
    template <class S>
    __device__ void square_scales(const PageFormat& f, const BlockPlan& plan, int index, int planned,
                                  uint16_t* squares) {
        first_ = index;
        end_ = index + 1;
        const int n_groups = groups_of(f, plan.tile(index));
        while (n_groups == 1 && end_ < min(planned, index + kColumns) && plan.tile(end_).n > 0 &&
               plan.tile(end_).k.coded() && groups_of(f, plan.tile(end_)) == 1) {
            ++end_;
        }
        const int n = n_groups == 1 ? end_ - first_ : n_groups;
        for (int c = S::loader(); c < f.head_size; c += S::kLoaders) {
            unsigned scales[kColumns];
#pragma unroll
            for (int i = 0; i < kColumns; ++i) {
                const TileSide& k = plan.tile(n_groups == 1 ? index + i : index).k;
                const int group = (k.token >> shift_of(f)) + (n_groups == 1 ? 0 : i);
                scales[i] = i < n ? k.from[f.scales_offset + group * f.head_size + c] : 0;
            }
#pragma unroll
            for (int i = 0; i < kColumns; ++i) {
                const float s = byte_scale(scales[i]);
                squares[i * S::kStride + c] = float_to_half_bits(s * s);
            }
        }
    }

    // The column of a token of tile `index`. in_tile: its index in the tile.
    __device__ int column(const PageFormat& f, const Tile& tile, int index, int in_tile) const {
        return index - first_ + ((tile.k.token & (f.group - 1)) + in_tile >> shift_of(f));
    }

    __device__ static int groups_of(const PageFormat& f, const Tile& tile) {
        return ((tile.k.token + tile.n - 1) >> shift_of(f)) - (tile.k.token >> shift_of(f)) + 1;
    }

private:
    // Groups are powers of two.
    __device__ static int shift_of(const PageFormat& f) {
        return 31 - __clz(f.group);
    }

    int first_ = 0;
    int end_ = 0;
};

// Stage "corrections": multiplies the squares of S::kM * 16 queries of a warp, from row `first` on, by `squares`.
// times: 1/24 in the units of the scores. to: float [S::kM * 16, 8], of the warp.
template <class S>
__device__ __forceinline__ void multiply_squares(typename S::Queries q, int first, const uint16_t* squares, float times,
                                                 const Lane& at, float* to) {
    const uint16_t* const column = squares + at.g * S::kStride + 2 * at.j;
    const auto square = [](unsigned x) { return bits(__hmul2(halves(x), halves(x))); };
    __syncwarp();  // the warp has read the preceding corrections
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
        float sum[4] = {0, 0, 0, 0};  // of rows g and g + 8, token groups 2 j and 2 j + 1
#pragma unroll
        for (int step = 0; step < S::kD / 16; ++step) {
            unsigned x[4];
            load_matrices(x, q.at(first + 16 * m + at.lane % 16, step * 16 + at.lane / 16 * 8));
            multiply(sum, square(x[0]), square(x[1]), square(x[2]), square(x[3]),
                     *reinterpret_cast<const unsigned*>(column + step * 16),
                     *reinterpret_cast<const unsigned*>(column + step * 16 + 8));
        }
        float* const row = to + (16 * m + at.g) * CorrectedTiles::kColumns + 2 * at.j;
        *reinterpret_cast<float2*>(row) = make_float2(times * sum[0], times * sum[1]);
        *reinterpret_cast<float2*>(row + 8 * CorrectedTiles::kColumns) = make_float2(times * sum[2], times * sum[3]);
    }
    __syncwarp();
}

}  // namespace

}  // namespace lk::cuda
