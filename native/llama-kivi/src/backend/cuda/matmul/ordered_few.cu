// GEMMs of float weights with up to 8 tokens, in the order of summing of ordered.cu and bound by reading the weights. A
// thread block multiplies 16 rows; each of its warps sums one segment of them and prefetches coming steps of its
// weights and tokens into shared memory.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/load_matrices.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = RowSegments::kCount;
constexpr int kRows = 16;
constexpr int kColumns = OrderedPlan::kFewColumns;
constexpr int kChunks = 4;  // per step
constexpr int kStepElements = 32 * kChunks;

// A stage of a warp: the rows, then the tokens.
template <WeightType kType>
struct FewStage {
    static constexpr int kBytes = block_bytes(kType);  // of an element
    // Pitches spread the reads of eight rows over all banks.
    static constexpr int kPitch = kStepElements * kBytes + 8 * kBytes;
    static constexpr int kColumnPitch = kStepElements * 2 + 16;
    static constexpr int kStages = kBytes == 2 ? 3 : 2;
    static constexpr int stage_bytes(int n) { return kRows * kPitch + n * kColumnPitch; }
    static constexpr int shared_bytes(int n) { return kWarps * kStages * stage_bytes(n); }
};

// Loads the operand `a` of `multiply`: 16 rows by elements [i, i + 16) of a step.
template <WeightType kType>
__device__ inline void load_rows(unsigned (&a)[4], const uint8_t* rows, int i) {
    constexpr int kPitch = FewStage<kType>::kPitch;
    const int lane = threadIdx.x % 32;
    if constexpr (kType == WeightType::F16) {
        load_matrices(
            a, static_cast<unsigned>(__cvta_generic_to_shared(rows + lane % 16 * kPitch + 2 * i + 16 * (lane / 16))));
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const uint8_t* const row = rows + (lane / 4 + k % 2 * 8) * kPitch;
            const int element = i + 2 * (lane % 4) + k / 2 * 8;
            if constexpr (kType == WeightType::BF16) {
                const unsigned two = *reinterpret_cast<const unsigned*>(row + 2 * element);
                a[k] = pack(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
            } else {
                static_assert(kType == WeightType::F32);
                const float2 two = *reinterpret_cast<const float2*>(row + 4 * element);
                a[k] = pack(two.x, two.y);
            }
        }
    }
}

template <WeightType kType>
__global__ void __launch_bounds__(32 * kWarps)
    multiply_ordered_few_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols,
                                const uint16_t* x, int n, RowSegments segments) {
    using S = FewStage<kType>;
    constexpr int kStages = S::kStages;
    start_next();
    extern __shared__ __align__(128) uint8_t shared[];
    const int which = product_of(products, blockIdx.x);
    const int n_rows = products.n_rows[which];
    const int first_row = (blockIdx.x - products.first_block[which]) * kRows;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int stage_bytes = S::stage_bytes(n);
    const int warp_bytes = kStages * stage_bytes;
    uint8_t* const stages = shared + warp * warp_bytes;
    const int begin = segments.begin_of(warp);
    const int end = segments.end_of(warp);
    const int end_element = min(n_cols, 32 * end);

    // A lane copies one 16-byte piece of several rows. Rows after the last one are copies of it.
    constexpr int kPieces = kStepElements * S::kBytes / 16;
    constexpr int kTogether = 32 / kPieces;
    const int piece = lane % kPieces;
    const uint8_t* const w = products.w[which] + static_cast<size_t>(first_row) * row_bytes;
    unsigned offsets[kRows / kTogether];
#pragma unroll
    for (int i = 0; i < kRows / kTogether; ++i) {
        const int row = min(lane / kPieces + kTogether * i, n_rows - 1 - first_row);
        offsets[i] = static_cast<unsigned>(row) * static_cast<unsigned>(row_bytes);
    }
    // After the end of the segment, zeros.
    const auto fetch_rows = [&](int chunk, int stage) {
        const int element = 32 * chunk + 16 / S::kBytes * piece;
        const int bytes = element < end_element ? 16 : 0;
        const uint8_t* const from = w + (bytes > 0 ? element * S::kBytes : 0);
        uint8_t* const to = stages + stage * stage_bytes + lane / kPieces * S::kPitch + 16 * piece;
#pragma unroll
        for (int i = 0; i < kRows / kTogether; ++i) {
            copy_async_some(to + i * kTogether * S::kPitch, from + offsets[i], bytes);
        }
    };
    const auto fetch_columns = [&](int chunk, int stage) {
        const int element = 32 * chunk + 8 * (lane % 16);
        const int bytes = element < end_element ? 16 : 0;
        const uint16_t* const from = x + (bytes > 0 ? element : 0);
        uint8_t* const to = stages + stage * stage_bytes + kRows * S::kPitch + 16 * (lane % 16);
        for (int column = lane / 16; column < n; column += 2) {
            copy_async_some(to + column * S::kColumnPitch, from + static_cast<size_t>(column) * n_cols, bytes);
        }
    };
    // Prefetch weights before the preceding kernels finish: no kernel writes them.
    for (int i = 0; i < kStages - 1; ++i) {
        if (begin + kChunks * i < end) {
            fetch_rows(begin + kChunks * i, i);
        }
    }
    wait_for_previous();
    for (int i = 0; i < kStages - 1; ++i) {
        if (begin + kChunks * i < end) {
            fetch_columns(begin + kChunks * i, i);
        }
        copy_commit();
    }
    // Tokens after the last one are copies of it; their sums are not used.
    const int lane_column = kRows * S::kPitch + min(lane % 8, n - 1) * S::kColumnPitch + 16 * (lane / 8);
    float acc[4] = {};
    int stage = 0;
    for (int chunk = begin; chunk < end; chunk += kChunks) {
        copy_wait<kStages - 2>();
        __syncwarp();  // all lanes have copied this stage and are done with the preceding one
        const int coming = chunk + kChunks * (kStages - 1);
        if (coming < end) {
            const int free_stage = stage == 0 ? kStages - 1 : stage - 1;
            fetch_rows(coming, free_stage);
            fetch_columns(coming, free_stage);
        }
        copy_commit();
        const uint8_t* const data = stages + stage * stage_bytes;
        const unsigned columns = static_cast<unsigned>(__cvta_generic_to_shared(data + lane_column));
        unsigned a[2 * kChunks][4];
        unsigned b[kChunks][4];
#pragma unroll
        for (int k = 0; k < kChunks; ++k) {
            load_matrices(b[k], columns + 64 * k);
            load_rows<kType>(a[2 * k], data, 32 * k);
            load_rows<kType>(a[2 * k + 1], data, 32 * k + 16);
        }
#pragma unroll
        for (int k = 0; k < 2 * kChunks; ++k) {
            if (chunk + k / 2 < end) {
                multiply(acc, a[k][0], a[k][1], a[k][2], a[k][3], b[k / 2][k % 2 * 2], b[k / 2][k % 2 * 2 + 1]);
            }
        }
        stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    __syncwarp();  // the stages are free
    constexpr int kSumPitch = kRows + 1;
    auto* const sums = reinterpret_cast<float*>(stages);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        sums[(2 * (lane % 4) + k % 2) * kSumPitch + lane / 4 + k / 2 * 8] = acc[k];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * kRows; i += 32 * kWarps) {
        const int column = i / kRows;
        const int row = i % kRows;
        float total = 0;
#pragma unroll
        for (int s = 0; s < kWarps; ++s) {
            total += reinterpret_cast<const float*>(shared + s * warp_bytes)[column * kSumPitch + row];
        }
        if (first_row + row < n_rows) {
            float& out = products.y[which][static_cast<size_t>(column) * n_rows + first_row + row];
            out = products.add[which] ? out + total : total;
        }
    }
}

}  // namespace

void multiply_ordered_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                          Stream& stream) {
    const int n_blocks = count_blocks(products, kRows);
    dispatch("matmul with few tokens in order", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (is_float(kType)) {
            using S = FewStage<kType>;
            constexpr auto* kKernel = multiply_ordered_few_kernel<kType>;
            static const bool raised = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                            S::shared_bytes(kColumns)) == cudaSuccess;
            static_cast<void>(raised);
            queue(kKernel, n_blocks, 32 * kWarps, S::shared_bytes(n), stream, products, row_bytes, n_cols, x, n,
                  RowSegments::of(n_cols));
        } else {
            fail_weights("matmul with few tokens in order", type);
        }
    });
}

}  // namespace lk::cuda
