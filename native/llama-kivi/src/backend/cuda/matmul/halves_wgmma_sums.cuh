// GEMMs of halves with wgmma: what becomes of the sums of a tile. few_wgmma.cu,
// ordered_wgmma.cu and quantized_wgmma.cu use it.
#pragma once

#include "backend/cuda/device/fence.cuh"
#include "backend/cuda/device/phase_barrier.cuh"
#include "backend/cuda/matmul/halves_wgmma_stages.cuh"

namespace lk::cuda {

namespace {

__device__ inline float4 four(const float (&sums)[4]) {
    return make_float4(sums[0], sums[1], sums[2], sums[3]);
}

__device__ inline void add(float (&sums)[4], float4 others) {
    sums[0] += others.x;
    sums[1] += others.y;
    sums[2] += others.z;
    sums[3] += others.w;
}

// Sums of the segments before the current one: of a thread, in registers and in shared memory.
template <class Tile>
struct WgmmaTotals {
    __device__ explicit WgmmaTotals(uint8_t* shared)
        : others(reinterpret_cast<float4*>(shared + Tile::kTotals) + threadIdx.x) {}

    // first: of the tile.
    __device__ void add(bool first, const TileSums<Tile>& sums) {
#pragma unroll
        for (int t = 0; t < Tile::kN; ++t) {
            if (t < Tile::kKept) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    kept[t][i] = (first ? 0 : kept[t][i]) + sums[t][i];
                }
            } else {
                float4& to = other(t);
                float total[4] = {};
                if (!first) {
                    cuda::add(total, to);
                }
                cuda::add(total, four(sums[t]));
                to = four(total);
            }
        }
    }
    __device__ void add_to(TileSums<Tile>& sums) const {
#pragma unroll
        for (int t = 0; t < Tile::kN; ++t) {
            cuda::add(sums[t], t < Tile::kKept ? four(kept[t < Tile::kKept ? t : 0]) : other(t));
        }
    }

    __device__ float4& other(int t) const {
        return others[(t - Tile::kKept) * Tile::kThreads];
    }

    float kept[Tile::kKept][4];
    float4* others;
};

// Partial sums of a tile are stored as the threads hold them. to: the thread's place.
template <class Tile>
__device__ void store_sums(float4* to, const TileSums<Tile>& sums) {
#pragma unroll
    for (int t = 0; t < Tile::kN; ++t) {
        __stcg(to + t * Tile::kThreads, four(sums[t]));
    }
}

// sums = n partial sums, added in order. at(i): the thread's place in one of them. kBatch: parts
// loaded at once.
template <class Tile, int kBatch = 1, class At>
__device__ void load_total(int n, At&& at, TileSums<Tile>& sums) {
    const auto for_batch = [&](int part, auto&& f) {
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            if (b == 0 || part + b < n) {
#pragma unroll
                for (int t = 0; t < Tile::kN; ++t) {
                    f(b, t);
                }
            }
        }
    };
    for_sums<Tile>([&](int t, int i) { sums[t][i] = 0; });
#pragma unroll 1
    for (int part = 0; part < n; part += kBatch) {
        float4 loaded[kBatch][Tile::kN];
        for_batch(part, [&](int b, int t) { loaded[b][t] = __ldcg(at(part + b) + t * Tile::kThreads); });
        for_batch(part, [&](int b, int t) { add(sums[t], loaded[b][t]); });
    }
}

// Whether the other parts of a tile have stored the sums of the warpgroup's rows too. Called after the thread block's
// own ones. count: parts that have, a word per tile and warpgroup.
template <class Tile>
__device__ bool is_last_part(int* count, int n_parts, uint8_t* shared) {
    const int group = threadIdx.x / 128;
    volatile int* const flag = reinterpret_cast<int*>(shared + Tile::kFlags) + group;
    sync_threads_of<128>(1 + group);
    if (threadIdx.x % 128 == 0) {
        fence_device();
        const bool last = atomicAdd(count, 1) == n_parts - 1;
        if (last) {
            fence_device();
            *count = 0;
        }
        *flag = last;
    }
    sync_threads_of<128>(1 + group);
    return *flag != 0;
}

// Writes a thread's sums to y.
template <class Tile>
__device__ void write_sums(const TilePlace<Tile>& place, TileSums<Tile>& sums) {
    constexpr int kBatch = Tile::kN < 8 ? Tile::kN : 8;  // tiles of 8 tokens whose y is loaded at once
    const int row = Tile::row_of(threadIdx.x, 0, 0);
    const int column = Tile::column_of(threadIdx.x, 0, 0);
    const size_t y_rows = static_cast<size_t>(place.y_rows);
    float* out = place.y + column * y_rows + row;
    const bool has_row[] = {row < place.n_rows, row + 8 < place.n_rows};
#pragma unroll
    for (int first = 0; first < Tile::kN; first += kBatch) {
        const auto for_batch = [&](auto&& f) {
            float* of_tile = out;
#pragma unroll
            for (int t = first; t < first + kBatch; ++t) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (has_row[i / 2] && column + 8 * t + i % 2 < place.n_columns) {
                        f(of_tile[i % 2 * y_rows + i / 2 * 8], sums[t][i]);
                    }
                }
                of_tile += 8 * y_rows;
            }
            return of_tile;
        };
        if (place.add) {
            for_batch([](const float& element, float& sum) { sum = element + sum; });
        }
        out = for_batch([](float& element, float sum) { element = sum; });
    }
}

}  // namespace

}  // namespace lk::cuda
