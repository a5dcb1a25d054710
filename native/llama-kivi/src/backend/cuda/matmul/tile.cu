// Products with some columns of quantized weights, up to 64. A tile is 96 rows of weights, and a row is taken in steps
// of 256 elements. All steps of all tiles, one tile after the other, are shared evenly among as many blocks as there
// are multiprocessors. A block brings the weights and columns of coming steps to shared memory, across the ends of
// tiles, while its warps turn weights into halves for the matrix units; each weight is read and decoded once. A tile
// whose steps are of several blocks is added up by the last of them to end, always in one order.
#include <algorithm>
#include <type_traits>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

constexpr int kWarpRows = 32;
constexpr int kRowWarps = TilePlan::kRows / kWarpRows;
constexpr int kSharers = 4;  // warps that share the elements of rows
constexpr int kThreads = kRowWarps * kSharers * 32;
constexpr int kMostStages = TilePlan::kMostStages;
constexpr int kStepElements = TilePlan::kStepElements;

// See TileStep.
template <WeightType kType>
struct Step {
    static constexpr TileStep kStep = TileStep::of(kType);
    static constexpr int kBytes = kStep.bytes;
    static constexpr int kAlign = kStep.align;
    static constexpr int kPieces = kStep.pieces;
    static constexpr int kPitch = kStep.pitch;
    static constexpr int kWeightBytes = kStep.weight_bytes;
    static constexpr int kColumnPitch = kStep.column_pitch;
};

// A lane's elements of a step: [i, i + 8) of two chunks of 32, of the rows g, g + 8, g + 16 and g + 24 of its warp.
template <WeightType kType>
class RowDecoder {
public:
    __device__ void begin(const uint8_t* const (&rows)[4], int i) {
        i_ = i;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            rows_[r] = rows[r];
        }
        if constexpr (kPairs) {
            // Four lanes have the same rows: each takes the scales of one.
            const PairScales scales(*reinterpret_cast<const uint4*>(own_row(rows)), i / 64);
            const unsigned scale = bits(scales.half_scales());
            const unsigned offset = bits(scales.half_offsets());
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                scales_[r] = halves(__shfl_sync(kAllLanes, scale, sharing_lane(r)));
                offsets_[r] = halves(__shfl_sync(kAllLanes, offset, sharing_lane(r)));
            }
        } else if constexpr (kType == WeightType::Q6_K) {
            // The same; two lanes need those of the chunks' first half, two of their second.
            const uint8_t* const own = own_row(rows);
            unsigned bytes[1];
            load_words<Space::shared>(own + 192 + i / 64 * 4, bytes);
            const __half2 d = __half2half2(__ushort_as_half(load_u16(own + 208)));
            const unsigned first = bits(__hmul2(bytes_to_halves(bytes[0] ^ 0x80808080u, 0x4240, 128), d));
            const unsigned second = bits(__hmul2(bytes_to_halves(bytes[0] ^ 0x80808080u, 0x4341, 128), d));
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const unsigned of_first = __shfl_sync(kAllLanes, first, sharing_lane(r));
                const unsigned of_second = __shfl_sync(kAllLanes, second, sharing_lane(r));
                scales_[r] = halves(i % 32 < 16 ? of_first : of_second);
            }
        }
    }

    template <int kChunk>
    __device__ void decode(uint4 (&out)[4]) const {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            if constexpr (kPairs) {
                out[r] = decode_half_pair<kType == WeightType::Q5_K, kChunk>(rows_[r], i_, scales_[r], offsets_[r]);
            } else if constexpr (kType == WeightType::Q6_K) {
                const int part = i_ / 128;
                const int shift = i_ % 128 / 64 * 4;
                unsigned low[2];
                unsigned high[2];
                load_words<Space::shared>(rows_[r] + part * 64 + kChunk * 32 + i_ % 32, low);
                load_words<Space::shared>(rows_[r] + 128 + part * 32 + i_ % 32, high);
                const __half2 scale = kChunk == 0 ? __low2half2(scales_[r]) : __high2half2(scales_[r]);
                const auto pair = [&](int w, unsigned select) {
                    const unsigned codes =
                        (low[w] >> shift & 0x0f0f0f0fu) | (high[w] >> (shift + 2 * kChunk) & 0x03030303u) << 4;
                    return bits(__hmul2(bytes_to_halves(codes, select, 32), scale));
                };
                out[r] = make_uint4(pair(0, 0x4140), pair(0, 0x4342), pair(1, 0x4140), pair(1, 0x4342));
            } else {
                out[r] = decode8_halves<kType, Space::shared>(rows_[r], i_ + 32 * kChunk);
            }
        }
    }

private:
    __device__ static const uint8_t* own_row(const uint8_t* const (&rows)[4]) {
        const int j = threadIdx.x % 4;
        return j < 2 ? (j == 0 ? rows[0] : rows[1]) : j == 2 ? rows[2] : rows[3];
    }
    // The lane whose own row is a lane's row r.
    __device__ static int sharing_lane(int r) {
        return threadIdx.x % 32 / 4 * 4 + r;
    }

    static constexpr bool kPairs = kType == WeightType::Q4_K || kType == WeightType::Q5_K;
    int i_;
    const uint8_t* rows_[4];
    __half2 scales_[4];  // of both chunks
    __half2 offsets_[4];
};

__device__ void wait_for_all_but(int groups) {
    switch (groups) {
    case 0:
        return copy_wait<0>();
    case 1:
        return copy_wait<1>();
    case 2:
        return copy_wait<2>();
    case 3:
        return copy_wait<3>();
    default:
        return copy_wait<kMostStages - 2>();
    }
}

// Where a unit (a step of a tile) is.
struct Place {
    __device__ Place(const FewProducts& products, const TilePlan& plan, int unit)
        : tile(unit / plan.n_steps), step(unit - tile * plan.n_steps) {
        find_product(products);
    }

    __device__ void advance(const FewProducts& products, const TilePlan& plan) {
        if (++step == plan.n_steps) {
            step = 0;
            ++tile;
            find_product(products);
        }
    }

    __device__ void find_product(const FewProducts& products) {
        which = product_of(products, tile);
        first_row = (tile - products.first_block[which]) * TilePlan::kRows;
    }

    int tile;
    int step;
    int which;
    int first_row;  // of the tile
};

// kTiles: of 8 columns.
template <WeightType kType, int kTiles>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_tiles_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x,
                          int n, const __grid_constant__ TilePlan plan, float* sums, int* counts) {
    using S = Step<kType>;
    constexpr int kRows = TilePlan::kRows;
    constexpr int kColumns = 8 * kTiles;
    constexpr int kStageBytes = S::kStep.stage_bytes(kTiles);
    extern __shared__ __align__(128) uint8_t shared[];
    const int begin = plan.shares.begin(blockIdx.x);
    const int end = plan.shares.begin(blockIdx.x + 1);
    const bool has_rest = n_cols % kStepElements != 0;

    // A lane copies one piece of some rows, all lanes of kLanes neighbours the same row's.
    const auto fetch_weights = [&](const Place& at, uint8_t* stage) {
        constexpr int kLanes = S::kPieces <= 8 ? 8 : S::kPieces <= 16 ? 16 : 32;
        constexpr int kTogether = kThreads / kLanes;  // rows
        const int piece = threadIdx.x % kLanes;
        if (piece >= S::kPieces) {
            return;
        }
        const int row = threadIdx.x / kLanes;
        const int n_rows = products.n_rows[at.which] - at.first_row - row;
        const uint8_t* const w = products.w[at.which];
        const uint8_t* from = w + static_cast<size_t>(at.first_row + row) * row_bytes + at.step * S::kBytes;
        uint8_t* const to = stage + row * S::kPitch + 16 * piece;
        const auto before = [&] {
            return S::kAlign < 16 ? static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16) : 0;
        };
        if (n_rows >= kRows && !(has_rest && at.step + 1 == plan.n_steps)) {
#pragma unroll
            for (int r = 0; r < kRows; r += kTogether) {
                copy_async(to + r * S::kPitch, from + (16 * piece - before()));
                from += kTogether * row_bytes;
            }
            return;
        }
        // Rows that are not there, and zeros behind the rows' end.
        const int left = static_cast<int>(row_bytes) - at.step * S::kBytes - 16 * piece;
        for (int r = 0; r < min(kRows, n_rows); r += kTogether) {
            const int bytes = min(max(left + before(), 0), 16);
            copy_async_some(to + r * S::kPitch, bytes > 0 ? from + (16 * piece - before()) : w, bytes);
            from += kTogether * row_bytes;
        }
    };
    const auto fetch_columns = [&](const Place& at, uint8_t* stage) {
        constexpr int kLanes = kStepElements / 8;
        constexpr int kTogether = kThreads / kLanes;  // columns
        const int column = threadIdx.x / kLanes;
        const int piece = threadIdx.x % kLanes;
        const int element = at.step * kStepElements + 8 * piece;
        const int bytes = element < n_cols ? 16 : 0;
        const uint16_t* from = x + static_cast<size_t>(column) * n_cols + (bytes > 0 ? element : 0);
        uint8_t* const to = stage + S::kWeightBytes + column * S::kColumnPitch + 16 * piece;
#pragma unroll
        for (int c = 0; c < kColumns; c += kTogether) {
            if (column < n - c) {
                copy_async_some(to + c * S::kColumnPitch, from, bytes);
            }
            from += kTogether * n_cols;
        }
    };

    uint8_t* const shared_end = shared + plan.n_stages * kStageBytes;
    const auto next_stage = [&](uint8_t* stage) {
        return stage + kStageBytes == shared_end ? shared : stage + kStageBytes;
    };
    // Weights are not written by the kernels before this one.
    Place place(products, plan, begin);
    Place fetched = place;
    for (int s = 0; s < min(end - begin, plan.n_stages - 1); ++s) {
        fetch_weights(fetched, shared + s * kStageBytes);
        fetched.advance(products, plan);
    }
    after_previous();
    fetched = place;
    for (int s = 0; s < plan.n_stages - 1; ++s) {
        if (begin + s < end) {
            fetch_columns(fetched, shared + s * kStageBytes);
            fetched.advance(products, plan);
        }
        copy_commit();
    }

    const int warp = threadIdx.x / 32;
    const int warp_row = warp % kRowWarps * kWarpRows;
    const int sharer = warp / kRowWarps;
    const int g = threadIdx.x % 32 / 4;
    const int j = threadIdx.x % 4;
    float acc[2][kTiles][4] = {};

    constexpr int kEach = kStepElements / kSharers;
    static_assert(kEach == 64);  // two chunks
    const int first = sharer * kEach + 8 * j;
    RowDecoder<kType> decoder;
    const auto begin_unit = [&](const Place& at, const uint8_t* stage) {
        unsigned before = 0;  // of a row in its first piece
        if constexpr (S::kAlign < 16) {
            before = static_cast<unsigned>(reinterpret_cast<uintptr_t>(products.w[at.which])) + at.step * S::kBytes +
                     (at.first_row + warp_row + g) * static_cast<unsigned>(row_bytes);
        }
        const uint8_t* rows[4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            rows[r] = stage + (warp_row + 8 * r + g) * S::kPitch +
                      (S::kAlign < 16 ? (before + 8 * r * static_cast<unsigned>(row_bytes)) % 16 : 0);
        }
        decoder.begin(rows, first);
    };
    // The products of a chunk of rows, `a`, with that of the columns.
    const auto multiply_chunk = [&](const uint8_t* stage, int chunk, const uint4(&a)[4]) {
        constexpr int kAtOnce = kTiles < 4 ? kTiles : 4;
        const uint8_t* const columns = stage + S::kWeightBytes + g * S::kColumnPitch + 2 * first + 64 * chunk;
#pragma unroll
        for (int first_tile = 0; first_tile < kTiles; first_tile += kAtOnce) {
            uint4 b[kAtOnce];
#pragma unroll
            for (int t = 0; t < kAtOnce; ++t) {
                b[t] = *reinterpret_cast<const uint4*>(columns + 8 * (first_tile + t) * S::kColumnPitch);
            }
            // In this order no product waits for the one before it.
#pragma unroll
            for (int i = 0; i < 2 * kAtOnce; ++i) {
                const uint4& low = a[i % 2 * 2];
                const uint4& high = a[i % 2 * 2 + 1];
                multiply(acc[i % 2][first_tile + i / 2], low.x, high.x, low.y, high.y, b[i / 2].x, b[i / 2].y);
            }
#pragma unroll
            for (int i = 0; i < 2 * kAtOnce; ++i) {
                const uint4& low = a[i % 2 * 2];
                const uint4& high = a[i % 2 * 2 + 1];
                multiply(acc[i % 2][first_tile + i / 2], low.z, high.z, low.w, high.w, b[i / 2].z, b[i / 2].w);
            }
        }
    };

    // The sums of a tile's steps up to `unit`, the last of them that this block has: to y, or to be added to others'.
    const auto finish_tile = [&](const Place& at, int unit, uint8_t* stage) {
        constexpr int kSums = 8 * kTiles;  // of a lane
        float sum[kSums];
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            sum[i] = acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4];
            acc[i / (4 * kTiles)][i / 4 % kTiles][i % 4] = 0;
        }
        // Sharers pair up twice: each gives the half of its sums that its partner keeps.
        auto* const exchange = reinterpret_cast<float*>(stage);
        const auto halve = [&](auto half, int bit) {
            constexpr int kHalf = decltype(half)::value;
            constexpr int kAtOnce = kHalf < 16 ? kHalf : 16;
            static_assert(kAtOnce * kThreads * sizeof(float) <= kStageBytes);
            const bool upper = (sharer & bit) != 0;
            const int partner = threadIdx.x + (upper ? -bit : bit) * kRowWarps * 32;
#pragma unroll
            for (int k = 0; k < kHalf; k += kAtOnce) {
                __syncthreads();
#pragma unroll
                for (int i = k; i < k + kAtOnce; ++i) {
                    exchange[(i - k) * kThreads + threadIdx.x] = upper ? sum[i] : sum[kHalf + i];
                }
                __syncthreads();
#pragma unroll
                for (int i = k; i < k + kAtOnce; ++i) {
                    sum[i] = (upper ? sum[kHalf + i] : sum[i]) + exchange[(i - k) * kThreads + partner];
                }
            }
        };
        halve(std::integral_constant<int, kSums / 2>{}, 2);
        halve(std::integral_constant<int, kSums / 4>{}, 1);
        constexpr int kKept = kSums / 4;
        const int first_sum = ((sharer & 2) != 0 ? kSums / 2 : 0) + ((sharer & 1) != 0 ? kKept : 0);

        const int n_rows = products.n_rows[at.which];
        float* const y = products.y[at.which];
        const bool add = products.add[at.which];
        const auto write = [&] {
#pragma unroll
            for (int k = 0; k < kKept; ++k) {
                const int i = first_sum + k;
                const int row = at.first_row + warp_row + i / (4 * kTiles) * 16 + i % 4 / 2 * 8 + g;
                const int column = i / 4 % kTiles * 8 + 2 * j + i % 2;
                if (column < n && row < n_rows) {
                    float& out = y[static_cast<size_t>(column) * n_rows + row];
                    out = add ? out + sum[k] : sum[k];
                }
            }
        };
        const int tile_begin = at.tile * plan.n_steps;
        const int n_done = unit + 1 - max(begin, tile_begin);
        if (n_done == plan.n_steps) {
            write();
            return;
        }
        // A block has parts of two tiles at most: that which it begins with, and that which it ends with.
        const auto sum_at = [&](int block, int k) {
            const int slot = 2 * block + (plan.shares.begin(block) <= tile_begin);
            return reinterpret_cast<float2*>(sums + static_cast<size_t>(slot) * TilePlan::kSums) + k * kThreads +
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
            is_last = atomicAdd(&counts[at.tile], n_done) == plan.n_steps - n_done;
            __threadfence();
        }
        if (__syncthreads_or(is_last) == 0) {
            return;
        }
#pragma unroll
        for (int k = 0; k < kKept; ++k) {
            sum[k] = 0;
        }
        const int last_block = plan.shares.block_of(tile_begin + plan.n_steps - 1);
#pragma unroll 2
        for (int block = plan.shares.block_of(tile_begin); block <= last_block; ++block) {
#pragma unroll
            for (int k = 0; k < kKept / 2; ++k) {
                const float2 v = __ldcg(sum_at(block, k));
                sum[2 * k] += v.x;
                sum[2 * k + 1] += v.y;
            }
        }
        write();
        if (threadIdx.x == 0) {
            counts[at.tile] = 0;
        }
    };

    // A chunk is decoded while the one before it is multiplied.
    uint8_t* stage = shared;
    uint8_t* free_stage = shared_end - kStageBytes;
    uint4 even[4];
    uint4 odd[4];
    if (begin < end) {
        wait_for_all_but(plan.n_stages - 2);
        __syncthreads();
        begin_unit(place, stage);
        decoder.template decode<0>(even);
    }
    for (int unit = begin; unit < end; ++unit) {
        decoder.template decode<1>(odd);
        multiply_chunk(stage, 0, even);
        Place next = place;
        next.advance(products, plan);
        if (unit + 1 < end) {
            wait_for_all_but(plan.n_stages - 3);
            __syncthreads();  // all are done with the stage before
            if (unit + plan.n_stages - 1 < end) {
                fetch_weights(fetched, free_stage);
                fetch_columns(fetched, free_stage);
                fetched.advance(products, plan);
            }
            copy_commit();
            begin_unit(next, next_stage(stage));
            decoder.template decode<0>(even);
        }
        multiply_chunk(stage, 1, odd);
        if (unit + 1 == end || next.step == 0) {
            finish_tile(place, unit, stage);
        }
        place = next;
        free_stage = stage;
        stage = next_stage(stage);
    }
}

// Lets a kernel have all the shared memory that a block can.
template <class Kernel>
bool raise_shared_bytes(Kernel kernel) {
    int device = 0;
    int bytes = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaSuccess;
}

}  // namespace

void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, cudaStream_t stream) {
    count_blocks(products, TilePlan::kRows);
    dispatch("matmul in tiles", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (is_float(kType)) {
            fail_weights("matmul in tiles", type);
        } else {
            const auto call = [&](auto tiles) {
                constexpr auto* kKernel = multiply_tiles_kernel<kType, decltype(tiles)::value>;
                static const bool raised = raise_shared_bytes(kKernel);
                static_cast<void>(raised);
                queue(kKernel, dim3(plan.shares.n_blocks), kThreads, plan.shared_bytes, stream, products, row_bytes,
                      n_cols, x, n, plan, sums, counts);
            };
            switch (column_tiles(n)) {
            case 1:
                return call(std::integral_constant<int, 1>{});
            case 2:
                return call(std::integral_constant<int, 2>{});
            case 4:
                return call(std::integral_constant<int, 4>{});
            default:
                return call(std::integral_constant<int, 8>{});
            }
        }
    });
}

}  // namespace lk::cuda
