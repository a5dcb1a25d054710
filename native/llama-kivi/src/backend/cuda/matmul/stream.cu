// GEMV: matmuls with one token, as in decoding a single sequence, bound by memory bandwidth. One thread block per
// multiprocessor. Its warps copy their rows into rings in shared memory; the first copies start before the preceding
// kernels end, so that weights move while these finish and the token is evaluated. Quantized weights are multiplied
// with the token in 8 bits, by dp4a.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/matmul/raise_shared.cuh"
#include "backend/cuda/matmul/stream_pieces.h"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = StreamStep::kWarps * 32;

// Arguments of a launch.
struct StreamWork {
    FewProducts products;
    size_t row_bytes;
    const float* x;  // the token, for float weights
    VectorCodes codes;
    StreamPlan plan;
    int n_cols;
};
static_assert(kUnpadded<StreamWork, FewProducts, size_t, void*, VectorCodes, StreamPlan, int>);

// ---- stages

// Row r of a step, if there is one more; one group of copies.
template <WeightType kType>
__device__ inline void fetch(bool more, const StreamCursor<kType>& at, int r, uint8_t* stage) {
    if (more) {
        at.for_each_copy(r, threadIdx.x % 32, stage, [](uint8_t* to, const uint8_t* from) { copy_async(to, from); });
    }
    copy_commit();
}

// Copies the token to shared memory; see StreamActivations.
template <WeightType kType>
__device__ inline void load_token(const StreamWork& a, uint8_t* x, uint8_t* blocks) {
    constexpr int kEach = is_float(kType) ? 4 : 16;  // elements of 16 bytes
    const auto* const from =
        reinterpret_cast<const uint4*>(is_float(kType) ? static_cast<const void*>(a.x) : a.codes.codes);
#pragma unroll 2
    for (int i = threadIdx.x; i < a.n_cols / kEach; i += kThreads) {
        *reinterpret_cast<uint4*>(x + StreamActivations::offset(kType, i * kEach)) = from[i];
    }
    for (int i = threadIdx.x; !is_float(kType) && i < a.n_cols / kBlock; i += kThreads) {
        reinterpret_cast<float2*>(blocks)[i] = a.codes.blocks[i];
    }
}

template <WeightType kType>
__device__ inline void store(const FewProducts& products, const StreamCursor<kType>& at, int r, float total) {
    at.store(r, [&](int which, int row) {
        float& y = products.y[which][row];
        y = products.add[which] ? y + total : total;
    });
}

template <WeightType kType>
__global__ void __launch_bounds__(kThreads, 2) multiply_stream_kernel(const __grid_constant__ StreamWork a) {
    using Piece = StreamPiece<kType>;
    constexpr StreamStep kStep = StreamStep::of(kType);
    constexpr int kRows = StreamStep::kRows;
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ float partial[StreamStep::kWarps][kRows];
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    uint8_t* const x = shared + kStep.ring_bytes();
    uint8_t* const blocks = x + a.plan.n_steps * kStep.elements;
    uint8_t* const ring = shared + warp * kStep.warp_bytes();
    const int n_pieces = a.n_cols / stream_piece(kType);

    start_next();
    // Weights are constant, so their copies need not wait for the preceding kernels.
    StreamCursor<kType> at(a.products, a.plan, a.row_bytes, blockIdx.x, warp);
    StreamCursor<kType> fetched = at;
    int left = a.plan.steps(blockIdx.x, warp);
#pragma unroll
    for (int s = 0; s < kStep.stages; ++s) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            fetch(left > s, fetched, r, ring + s * kStep.stage_bytes());
        }
        fetched.advance();
    }
    wait_for_previous();
    load_token<kType>(a, x, blocks);
    __syncthreads();

    uint8_t* stage = ring;
    float sum[kRows] = {};
    bool begun = at.at_first_step();  // this warp has the first step of the pair
    for (; left > 0; at.advance(), --left) {
        copy_wait<kRows*(kStep.stages - 1)>();
        __syncwarp();
        const bool has_piece = at.step() * 32 + lane < n_pieces;
        const typename Piece::X activations(x, blocks, at.step(), lane);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            Piece piece;
            if (has_piece) {
                piece.load(stage + r * kStep.pitch + at.start(r), lane);
            }
            __syncwarp();  // the row has been read
            fetch(left > kStep.stages, fetched, r, stage);
            if (has_piece) {
                sum[r] += piece.dot(activations, lane);
            }
        }
        fetched.advance();
        stage = stage + kStep.stage_bytes() == ring + kStep.warp_bytes() ? ring : stage + kStep.stage_bytes();
        if (at.ends_pair() || left == 1) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const float total = warp_sum(sum[r]);
                if (lane == 0 && !begun) {
                    partial[warp][r] = total;
                } else if (lane == 0 && at.ends_pair()) {
                    store(a.products, at, r, total);
                }
                sum[r] = at.ends_pair() ? 0 : total;
            }
            begun = begun || at.ends_pair();
        }
    }
    // Later warps have the last steps of a pair that this warp began.
    __syncthreads();
    if (begun && at.step() != 0 && lane == 0) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            a.plan.for_each_follower(blockIdx.x, warp, [&](int other) { sum[r] += partial[other][r]; });
            store(a.products, at, r, sum[r]);
        }
    }
}

}  // namespace

void multiply_stream(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, int n_processors, Stream& stream) {
    const StreamPlan plan = StreamPlan::of(type, products, n_cols, n_processors);
    const StreamWork work{products, row_bytes, x, codes, plan, n_cols};
    dispatch("matmul with one token", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (stream_piece(kType) == 0) {
            fail_weights("matmul with one token", type);
        } else {
            constexpr auto* kKernel = multiply_stream_kernel<kType>;
            static const bool raised = raise_shared_bytes_and_carveout(kKernel);
            static_cast<void>(raised);
            queue(kKernel, plan.n_blocks, kThreads, stream_bytes(type, n_cols), stream, work);
        }
    });
}

}  // namespace lk::cuda
