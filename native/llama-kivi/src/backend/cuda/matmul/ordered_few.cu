// GEMMs of float weights with up to 8 tokens, in the order of summing of ordered.cu and bound by reading the weights. A
// thread block multiplies 16 rows; each of its warps sums one segment of them and prefetches coming steps of its
// weights into shared memory.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/weights.cuh"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kWarps = OrderedPlan::kSegments;
constexpr int kRows = 16;
constexpr int kColumns = OrderedPlan::kFewColumns;
constexpr int kChunks = 4;  // per step

template <WeightType kType>
struct FewStep {
    static constexpr int kBytes = block_bytes(kType);  // of an element
    static constexpr int kRowBytes = 32 * kChunks * kBytes;
    static constexpr int kPitch = kRowBytes + 64;  // neighbouring rows start in different banks
    static constexpr int kStageBytes = kRows * kPitch;
    static constexpr int kStages = kBytes == 2 ? 3 : 2;
    static constexpr int kShared = kWarps * kStages * kStageBytes;
};

template <WeightType kType>
__global__ void __launch_bounds__(32 * kWarps)
    multiply_ordered_few_kernel(const __grid_constant__ FewProducts products, size_t row_bytes, int n_cols,
                                const uint16_t* x, int n, const OrderedPlan plan) {
    using S = FewStep<kType>;
    constexpr int kStages = S::kStages;
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ float sums[kWarps][kColumns][kRows + 1];
    const int which = product_of(products, blockIdx.x);
    const int n_rows = products.n_rows[which];
    const int first_row = (blockIdx.x - products.first_block[which]) * kRows;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    uint8_t* const stages = shared + warp * kStages * S::kStageBytes;
    const int begin = plan.begin_of(warp);
    const int end = plan.end_of(warp);
    const auto fetch = [&](int chunk, int stage) {
        constexpr int kPieces = S::kRowBytes / 16;
        const int left = min(n_cols, 32 * end) * S::kBytes - 32 * chunk * S::kBytes;  // bytes of the segment
#pragma unroll
        for (int i = lane; i < kRows * kPieces; i += 32) {
            const int row = i / kPieces;
            const int at = i % kPieces * 16;
            const uint8_t* const from = products.w[which] +
                                        static_cast<size_t>(min(first_row + row, n_rows - 1)) * row_bytes +
                                        32 * chunk * S::kBytes;
            copy_async_some(stages + stage * S::kStageBytes + row * S::kPitch + at, at < left ? from + at : from,
                            at < left ? 16 : 0);
        }
    };
    // Prefetch weights before the preceding kernels finish: no kernel writes them.
    for (int i = 0; i < kStages - 1; ++i) {
        if (begin + kChunks * i < end) {
            fetch(begin + kChunks * i, i);
        }
        copy_commit();
    }
    after_previous();
    float acc[4] = {};
    int stage = 0;
    for (int chunk = begin; chunk < end; chunk += kChunks) {
        copy_wait<kStages - 2>();
        __syncwarp();
        const int coming = chunk + kChunks * (kStages - 1);
        if (coming < end) {
            fetch(coming, (stage + kStages - 1) % kStages);
        }
        copy_commit();
        const uint8_t* const rows = stages + stage * S::kStageBytes + g * S::kPitch;
        uint4 c[kChunks];
#pragma unroll
        for (int k = 0; k < kChunks; ++k) {
            const int i = 32 * (chunk + k) + 8 * j;
            c[k] = g < n && i < n_cols ? *reinterpret_cast<const uint4*>(x + static_cast<size_t>(g) * n_cols + i)
                                       : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int k = 0; k < kChunks; ++k) {
            if (chunk + k < end) {
                const uint4 a = decode8_halves<kType>(rows, 32 * k + 8 * j);
                const uint4 b = decode8_halves<kType>(rows + 8 * S::kPitch, 32 * k + 8 * j);
                multiply(acc, a.x, b.x, a.y, b.y, c[k].x, c[k].y);
                multiply(acc, a.z, b.z, a.w, b.w, c[k].z, c[k].w);
            }
        }
        __syncwarp();  // all lanes are done with the stage
        stage = (stage + 1) % kStages;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        sums[warp][2 * j + k % 2][g + k / 2 * 8] = acc[k];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * kRows; i += 32 * kWarps) {
        const int column = i / kRows;
        const int row = i % kRows;
        float total = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            total += sums[w][column][row];
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
    const OrderedPlan plan = OrderedPlan::of(1, n_cols, n, {});
    dispatch("matmul with few tokens in order", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (is_float(kType)) {
            constexpr auto* kKernel = multiply_ordered_few_kernel<kType>;
            constexpr int kShared = FewStep<kType>::kShared;
            static const bool raised =
                cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared) == cudaSuccess;
            static_cast<void>(raised);
            queue(kKernel, n_blocks, 32 * kWarps, kShared, stream, products, row_bytes, n_cols, x, n, plan);
        } else {
            fail_weights("matmul with few tokens in order", type);
        }
    });
}

}  // namespace lk::cuda
