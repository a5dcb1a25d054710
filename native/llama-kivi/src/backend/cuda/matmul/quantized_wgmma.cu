// GEMMs of quantized weights with wgmma. A step is 256 elements of each row of a tile. One warpgroup copies steps of
// weights and tokens into shared memory, ahead of the two that multiply, and decodes the scales. Each of these two has
// 64 of the tile's 128 rows: it dequantizes 32 elements to registers while the tensor cores multiply the preceding 32,
// also across steps and tiles. Tokens are stored in the order in which lanes have
// weights (ToLaneHalves). Thread blocks have equally many steps (QuantizedPlan); the block that finishes a tile's last
// part adds all parts in the order of their elements.
#include <algorithm>
#include <type_traits>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/halves_wgmma_sums.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/quantized_wgmma_fetch.cuh"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

// A warpgroup's rows of a step.
template <class Tile>
struct StepRows {
    using Row = QuantizedRow<Tile::kType>;
    static constexpr int kLaneRows = 2;  // at a distance of 8
    using Codes = typename Row::Codes[kLaneRows];
    using Fragments = uint4[kLaneRows];  // a lane's weights of a chunk

    // first_row: the lane's, in the tile. before: see RowAlignment.
    template <int kPanel>
    __device__ __forceinline__ static void load(const uint8_t* stage, int first_row, int before, int j, Codes& codes) {
        const uint8_t* const rows = stage + first_row * Tile::kPitch + before;
        const uint8_t* const scales = stage + Tile::kScales + first_row * Tile::kScaleBytes;
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) {
            Row::template load<kPanel>(rows + 8 * r * Tile::kPitch, scales + 8 * r * Tile::kScaleBytes, j, codes[r]);
        }
    }

    template <int kPanel, int kHalf>
    __device__ __forceinline__ static void decode(const Codes& codes, unsigned upper, Fragments& out) {
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) {
            out[r] = Row::template decode<kPanel, kHalf>(codes[r], upper);
        }
    }
};

// Multiplies a chunk, asynchronously. Returns when the chunk before it is multiplied, so that its fragments may be
// replaced.
template <class Tile>
__device__ __forceinline__ void multiply_chunk(const typename StepRows<Tile>::Fragments& rows,
                                               const PanelOperand& tokens, int first, TileSums<Tile>& sums) {
    const uint4& low = rows[0];
    const uint4& high = rows[1];
    warpgroup_begin();
    multiply_group(sums, low.x, high.x, low.y, high.y, tokens.from(first));
    multiply_group(sums, low.z, high.z, low.w, high.w, tokens.from(first + 16));
    warpgroup_commit();
    warpgroup_wait<1>();
}

// Writes the sums of a unit to y or merges them with other blocks' sums, and clears them.
template <class Tile>
__device__ __forceinline__ void finish_tile(const QuantizedWork& a, const TileUnit& unit, uint8_t* shared,
                                            TileSums<Tile>& sums) {
    const auto place_of = [&](int block) {
        return a.sums + static_cast<size_t>(a.plan.slot_of(block, unit.tile)) * (Tile::kN * Tile::kThreads) +
               threadIdx.x;
    };
    bool complete = true;
    if (!a.plan.whole(unit)) {
        store_sums<Tile>(place_of(blockIdx.x), sums);
        const int n_parts = a.plan.n_parts(unit.tile);
        complete = is_last_part<Tile>(a.counts + unit.tile * Tile::kGroups + threadIdx.x / 128, n_parts, shared);
        if (complete) {
            const int first = a.plan.first_block(unit.tile);
            load_total<Tile, std::clamp(16 / Tile::kN, 1, 4)>(
                n_parts, [&](int part) { return place_of(first + part); }, sums);
        }
    }
    if (complete) {
        write_sums(TilePlace<Tile>(a, unit.tile), sums);
    }
    for_sums<Tile>([&](int t, int i) { sums[t][i] = 0; });
}

// Multiplies the thread block's steps; for the other warpgroups.
template <class Tile>
__device__ __forceinline__ void multiply_steps(const QuantizedWork& a, const WgmmaStages<Tile>& stages,
                                               uint8_t* shared) {
    using Rows = StepRows<Tile>;
    const int j = threadIdx.x % 4;
    const int end = a.plan.shares.begin(blockIdx.x + 1);
    int step = a.plan.shares.begin(blockIdx.x);
    const int first_row = Tile::row_of(threadIdx.x, 0, 0);
    RowAlignment<Tile> alignment(a, first_row, step);
    // In a register that the compiler does not know to be constant: as a constant it becomes an operand of each
    // __byte_perm, whose selector then needs an instruction of its own.
    volatile unsigned* const upper_word = reinterpret_cast<unsigned*>(shared + Tile::kFlags) + threadIdx.x / 128;
    *upper_word = kUpperBytes;
    sync_threads_of<128>(1 + threadIdx.x / 128);
    const unsigned upper = *upper_word;
    sync_threads_of<128>(1 + threadIdx.x / 128);

    TileSums<Tile> sums = {};
    typename Rows::Codes codes;
    typename Rows::Fragments rows[2];  // of the chunk that is multiplied, and of the next one
    WgmmaCursor<Tile> at;
    int previous = -1;  // stage that may still be read
    barrier_wait(stages.full(0), 0);
    Rows::template load<0>(shared, first_row, alignment.before(), j, codes);
    Rows::template decode<0, 0>(codes, upper, rows[0]);
    wait_for_previous();  // before y is read or written
    while (step < end) {
        const TileUnit unit = a.plan.unit_at(step, end);
        step += unit.end - unit.first;
#pragma unroll 1
        for (int left = unit.end - unit.first; left > 0; --left) {
            const int stage = at.stage;
            const uint8_t* const data = shared + stage * Tile::kStageBytes;
            at.advance();
            const auto panel = [&](auto index) {
                constexpr int kPanel = decltype(index)::value;
                constexpr int kNext = (kPanel + 1) % Tile::kPanels;
                const PanelOperand operand(data + Tile::kTokens + kPanel * Tile::kPanelBytes);
                multiply_chunk<Tile>(rows[0], operand, 0, sums);
                if constexpr (kPanel == 0) {
                    if (previous >= 0) {
                        __syncwarp();  // all lanes are done with its codes
                        stages.release(previous);
                    }
                }
                Rows::template decode<kPanel, 1>(codes, upper, rows[1]);
                if constexpr (kNext == 0) {
                    // After the last step, the next stage has old data, which no sum includes.
                    if (left > 1 || step < end) {
                        barrier_wait(stages.full(at.stage), at.parity);
                    }
                    alignment.advance();
                    Rows::template load<0>(shared + at.stage * Tile::kStageBytes, first_row, alignment.before(), j,
                                           codes);
                } else {
                    Rows::template load<kNext>(data, first_row, alignment.before(), j, codes);
                }
                multiply_chunk<Tile>(rows[1], operand, 32, sums);
                Rows::template decode<kNext, 0>(codes, upper, rows[0]);
            };
            panel(std::integral_constant<int, 0>{});
            panel(std::integral_constant<int, 1>{});
            panel(std::integral_constant<int, 2>{});
            panel(std::integral_constant<int, 3>{});
            previous = stage;
        }
        warpgroup_wait<0>();
        hold(sums);
        finish_tile<Tile>(a, unit, shared, sums);
    }
}

// Grid: [plan.shares.n_blocks].
template <class Tile>
__global__ void __launch_bounds__(Tile::kBoundThreads, 1)
    multiply_quantized_wgmma_kernel(const __grid_constant__ TensorMap tokens, const __grid_constant__ QuantizedWork a) {
    extern __shared__ __align__(1024) uint8_t shared[];
    start_next();
    const WgmmaStages<Tile> stages(shared);
    if (threadIdx.x == 0) {
        stages.init(Tile::kFetchThreads + 1);  // and the tokens
    }
    __syncthreads();
    if (threadIdx.x < Tile::kThreads) {
        warpgroup_take_registers<Tile::kMultiplyRegisters>();
        multiply_steps<Tile>(a, stages, shared);
    } else {
        warpgroup_give_registers<Tile::kFetchRegisters>();
        fetch_quantized_steps<Tile>(tokens, a, stages, shared);
    }
}

// Calls f with the tile of these types and tokens.
template <class F>
void with_quantized_tile(WeightType type, int n, F&& f) {
    const auto with_type = [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if (n <= 8) {
            return f(QuantizedTile<kType, 1>{});
        }
        if (n <= 16) {
            return f(QuantizedTile<kType, 2>{});
        }
        if (n <= 32) {
            return f(QuantizedTile<kType, 4>{});
        }
        if constexpr (quantized_wgmma_columns(kType) == 128) {
            if (n > 64) {
                return f(QuantizedTile<kType, 16>{});
            }
        }
        f(QuantizedTile<kType, 8>{});
    };
    switch (type) {
    case WeightType::Q4_K:
        return with_type(Constant<WeightType::Q4_K>{});
    case WeightType::Q5_K:
        return with_type(Constant<WeightType::Q5_K>{});
    case WeightType::Q6_K:
        return with_type(Constant<WeightType::Q6_K>{});
    case WeightType::Q8_0:
        return with_type(Constant<WeightType::Q8_0>{});
    default:
        fail_weights("matmul with wgmma", type);
    }
}

// A launch with fewer registers than the warpgroups exchange would never end.
template <class Tile, class Kernel>
bool check_registers(Kernel kernel) {
    cudaFuncAttributes attributes{};
    if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.numRegs != Tile::kRegisters) {
        fail_registers("multiply_quantized_wgmma", attributes.numRegs, Tile::kRegisters);
    }
    return true;
}

}  // namespace

void multiply_quantized_wgmma(WeightType type, const QuantizedPlan& plan, OrderedProducts products, size_t row_bytes,
                              int n_cols, const uint16_t* x, int n, float* sums, int* counts, Stream& stream) {
    count_blocks(products.matrices, QuantizedPlan::kRows);
    const QuantizedWork work{products, row_bytes, reinterpret_cast<float4*>(sums), counts, plan, n};
    with_quantized_tile(type, n, [&](auto tile) {
        using Tile = decltype(tile);
        static_assert(Tile::kRows == QuantizedPlan::kRows);
        constexpr auto* kKernel = multiply_quantized_wgmma_kernel<Tile>;
        static const bool raised = check_registers<Tile>(kKernel) && raise_shared_bytes_and_carveout(kKernel);
        static_cast<void>(raised);
        queue(kKernel, plan.shares.n_blocks, Tile::kAllThreads, Tile::kSharedBytes, stream,
              map_halves(x, n, n_cols, Tile::kColumns), work);
    });
}

}  // namespace lk::cuda
