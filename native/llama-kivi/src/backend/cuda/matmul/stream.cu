// GEMV: matmuls with one token, as in decoding a single sequence, bound by memory bandwidth. One thread block per
// multiprocessor. Its warps copy their rows into rings in shared memory; the first copies start before the preceding
// kernels end, so that weights move while these finish and the token is evaluated. Quantized weights are multiplied
// with the token in 8 bits, by dp4a.
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/lanes.cuh"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/row_sums.cuh"
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
    Rows rows;
    VectorCodes codes;
    RowsWatch watch;
    StreamPlan plan;
    int n_cols;
    unsigned row_bytes;
    int n_sums;  // of a norm; see count_sums
    int unused = 0;
};
static_assert(kUnpadded<StreamWork, FewProducts, Rows, VectorCodes, RowsWatch, StreamPlan, int[4]>);

// ---- stages

// The rows of the next step, if there is one; one group of copies.
template <WeightType kType>
__device__ inline void fetch(bool more, StreamCopies<kType>& copies, SharedBytes stage) {
    constexpr StreamStep kStep = StreamCopies<kType>::kStep;
    const SharedBytes at = stage + copies.stage_offset();
    copies.for_each(
        more, [at](bool wanted, int to, const uint8_t* from) { copy_async_if(wanted, (at + to).pointer(), from); });
    copy_commit();
    if (kStep.align < 16 && threadIdx.x % 16 == 0) {
        at.write(kStep.start_offset(), copies.start());
    }
    copies.next_step();
}

// The weights of a norm are constant too: they reach the L2 cache before the token does.
__device__ inline void prefetch_norm(const StreamWork& a) {
    constexpr int kLine = 128 / sizeof(float);
    if (a.rows.weight != nullptr) {
        for (int i = threadIdx.x * kLine; i < a.n_cols; i += kThreads * kLine) {
            asm volatile("prefetch.global.L2 [%0];" ::"l"(a.rows.weight + i));
        }
    }
}

// Reports why a value of the row is not finite: the input is not, or the norm overflows.
__device__ inline void report_token(const StreamWork& a) {
#pragma unroll 1
    for (int i = 0; i < a.n_cols; ++i) {
        if (!lk::is_finite(a.rows.x[i])) {
            return report(a.watch.broken, a.watch.x);
        }
    }
    report(a.watch.broken, a.watch.made);
}

// Values: see load_floats.
template <WeightType kType, class Values>
__device__ inline void put_floats(const StreamWork& a, const Values& values, SharedBytes x, SharedBytes blocks) {
    bool finite = true;
    const auto note = [&finite] { finite = false; };
    if constexpr (is_float(kType)) {
        load_floats<kType, kThreads>(threadIdx.x, a.n_cols, values, x, note);
    } else {
        quantize_token<kType, kThreads>(Lanes{}, a.n_cols, values, x, blocks, note);
    }
    if (!finite) {
        report_token(a);
    }
}

// scratch: 32 floats in shared memory.
template <WeightType kType>
__device__ inline void put_token(const StreamWork& a, SharedBytes x, SharedBytes blocks, float* scratch) {
    if constexpr (!is_float(kType)) {
        if (a.codes.codes != nullptr) {
            return load_codes<kType, kThreads>(threadIdx.x, a.n_cols, reinterpret_cast<const Words4*>(a.codes.codes),
                                               reinterpret_cast<const Floats2*>(a.codes.blocks), x, blocks);
        }
    }
    const auto fours = [](const float* p) { return reinterpret_cast<const Floats4*>(p); };
    const Floats4* const token = fours(a.rows.x);
    if (a.rows.form == Rows::Form::rms_norm) {
        const Row<kMostSums / kThreads, 1> row(a.rows.x, a.n_cols, a.n_sums);
        const float scale = inverse_rms(row, a.rows.eps, a.n_cols, a.n_sums, scratch, a.watch);
        put_floats<kType>(a, NormedToken{token, fours(a.rows.weight), scale}, x, blocks);
    } else {
        put_floats<kType>(a, PlainToken{token}, x, blocks);
    }
}

template <WeightType kType>
__device__ inline void store(const FewProducts& products, const StreamCursor<kType>& at, float total) {
    at.store([&](int which, int row) {
        float* const y = products.y[which] + row;
        if (products.add[which]) {
            atomicAdd(y, total);  // the only one to this element; unlike a load, nothing waits for it
        } else {
            *y = total;
        }
    });
}

// Partial sums of half a warp, and scratch of put_token, in static shared memory.
using StreamPartials = float[kPartialBytes / 4];
static_assert(kPartialBytes / 4 == StreamStep::kWarps * StreamStep::kRows && kPartialBytes / 4 >= 32);

// block: index among the blocks of the work.
template <WeightType kType>
__device__ __forceinline__ void multiply_rows(const StreamWork& a, int block, StreamPartials& partial) {
    using Piece = StreamPiece<kType>;
    constexpr StreamStep kStep = StreamStep::of(kType);
    constexpr int kRows = StreamStep::kRows;
    extern __shared__ __align__(128) uint8_t shared[];
    // The shuffle tells the compiler that lanes have the same warp, so that it knows where they cannot diverge.
    const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0);
    const int lane = threadIdx.x % 32;
    const SharedBytes x = SharedBytes(shared) + kStep.ring_bytes();
    const SharedBytes blocks = x + a.plan.n_steps * kStep.elements;
    const SharedBytes ring = SharedBytes(shared) + warp * kStep.warp_bytes();
    // Steps in which this lane has a piece; in the last one of a row it may have none.
    const int lane_steps = (a.n_cols / stream_piece(kType) + 31 - lane) / 32;
    const SharedBytes lane_x = x + lane * 16;
    const SharedBytes lane_blocks = blocks + lane * StreamActivations::lane_block_bytes(kType);

    // Weights are constant, so their copies need not wait for the preceding kernels.
    StreamCursor<kType> at(a.products, a.plan, block, warp, lane);
    StreamCopies<kType> copies(at, a.row_bytes);
    int left = a.plan.steps(block, warp);
#pragma unroll 1
    for (int s = 0; s < kStep.stages; ++s) {
        fetch(left > s, copies, ring + s * kStep.stage_bytes());
    }
    prefetch_norm(a);
    wait_for_previous();
    put_token<kType>(a, x, blocks, partial);
    __syncthreads();

    SharedBytes stage = ring;
    float sum[kRows] = {};
    bool begun = at.step() == 0;  // this warp has the first step of the pair
    for (; left > 0; --left) {
        copy_wait<kStep.stages - 1>();
        __syncwarp();
        StreamRows rows;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            rows.at[r] = stage + r * kStep.pitch;
            if constexpr (kStep.align < 16) {
                rows.at[r] = rows.at[r] + rows.at[r].template read<int>(kStep.start_offset());
            }
        }
        const StreamX activations{lane_x + at.step() * StreamActivations::step_bytes(kType),
                                  lane_blocks + at.step() * StreamActivations::step_block_bytes(kType)};
        Piece::add(rows, activations, lane, at.step() < lane_steps, sum);
        __syncwarp();  // the rows have been read
        fetch(left > kStep.stages, copies, stage);
        stage = stage + kStep.stage_bytes();
        stage = stage == ring + kStep.warp_bytes() ? ring : stage;
        at.next_step();
        if (at.passed_pair()) {
            const float total = warp_sums(Lanes{}, sum[0], sum[1]);
            if (lane % 16 == 0 && begun) {
                store(a.products, at, total);
            } else if (lane % 16 == 0) {
                partial[threadIdx.x / 16] = total;
            }
            sum[0] = 0;
            sum[1] = 0;
            begun = true;
            at.next_pair();
        }
    }
    // Later warps have the last steps of a pair that this warp began.
    float total = warp_sums(Lanes{}, sum[0], sum[1]);
    if (!begun && at.step() != 0 && lane % 16 == 0) {
        partial[threadIdx.x / 16] = total;
    }
    __syncthreads();
    if (begun && at.step() != 0 && lane % 16 == 0) {
        a.plan.for_each_follower(block, warp, [&](int other) { total += partial[other * kRows + lane / 16]; });
        store(a.products, at, total);
    }
}

template <WeightType kType>
__global__ void __launch_bounds__(kThreads, 2) multiply_stream_kernel(const __grid_constant__ StreamWork a) {
    __shared__ StreamPartials partial;
    start_next();
    multiply_rows<kType>(a, blockIdx.x, partial);
}

// Weights of two types at once. Otherwise the second launch would begin to read when the first has ended: a block of
// either fills a multiprocessor.
template <WeightType kFirst, WeightType kSecond>
__global__ void __launch_bounds__(kThreads, 2)
    multiply_stream_two_kernel(const __grid_constant__ StreamWork a, const __grid_constant__ StreamWork b) {
    __shared__ StreamPartials partial;
    start_next();
    const int block = blockIdx.x;
    if (block < a.plan.n_blocks) {
        multiply_rows<kFirst>(a, block, partial);
    } else {
        multiply_rows<kSecond>(b, block - a.plan.n_blocks, partial);
    }
}

}  // namespace

void multiply_stream(const StreamProducts* parts, int n_parts, int n_cols, const Rows& rows, VectorCodes codes,
                     const RowsWatch& watch, int n_processors, Stream& stream) {
    const auto work_of = [&](StreamProducts part, int n_blocks) {
        const StreamPlan plan = StreamPlan::of(part.type, part.products, n_cols, n_blocks);
        return StreamWork{part.products,     rows, codes, watch, plan, n_cols, static_cast<unsigned>(part.row_bytes),
                          count_sums(n_cols)};
    };
    const WeightType type = parts[0].type;
    dispatch("matmul with one token", type, [&](auto t) {
        constexpr WeightType kType = decltype(t)::value;
        if constexpr (stream_piece(kType) == 0) {
            fail_weights("matmul with one token", type);
        } else if (n_parts == 1) {
            constexpr auto* kKernel = multiply_stream_kernel<kType>;
            static const bool raised = raise_shared_bytes_and_carveout(kKernel);
            static_cast<void>(raised);
            const StreamWork work = work_of(parts[0], n_processors);
            queue(kKernel, work.plan.n_blocks, kThreads, stream_bytes(type, n_cols), stream, work);
        } else if constexpr (streams_together(kType, WeightType::Q6_K)) {
            constexpr auto* kKernel = multiply_stream_two_kernel<kType, WeightType::Q6_K>;
            static const bool raised = raise_shared_bytes_and_carveout(kKernel);
            static_cast<void>(raised);
            const int first_blocks = first_stream_blocks(parts[0].bytes(), parts[1].bytes(), n_processors);
            const StreamWork first = work_of(parts[0], first_blocks);
            const StreamWork second = work_of(parts[1], n_processors - first_blocks);
            const int shared_bytes = std::max(stream_bytes(type, n_cols), stream_bytes(WeightType::Q6_K, n_cols));
            queue(kKernel, first.plan.n_blocks + second.plan.n_blocks, kThreads, shared_bytes, stream, first, second);
        } else {
            fail_weights("matmul with one token, of two types", type);
        }
    });
}

}  // namespace lk::cuda
