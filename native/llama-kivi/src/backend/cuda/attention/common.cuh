// Shared by the attention kernels: addresses of tokens, and a warp's softmax state.
#pragma once

#include <climits>
#include <cmath>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/warp.cuh"
#include "backend/invariant_splits.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

namespace {

constexpr int kJoinWarps = kAttentionWarps;

// Refined channels of a head that the page kernels are compiled for: those of kivi3 (3-bit values) and of kivi2.
__host__ __device__ constexpr int refined_in(int value_bits, int head_size) {
    return value_bits == 3 ? head_size / 2 : head_size * 3 / 8;
}
static_assert(refined_in(2, 128) == kv::refined_channels(kv::own_recipe(LK_CACHE_KIVI2), 128));
static_assert(refined_in(3, 128) == kv::refined_channels(kv::own_recipe(LK_CACHE_KIVI3), 128));

// The warp's index in its block. The compiler sees that it is the same in all lanes, so branches that depend on it need
// no code for lanes that part.
__device__ inline int warp_index() {
    return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 32), 0);
}

// Decodes a byte scale of the cache, without the head's power of two.
__device__ inline float byte_scale(unsigned byte) {
    return kv::byte_scale_base(byte);
}

// Maximum over a warp, for any floats: maps them to unsigned integers of the same order.
__device__ inline float warp_max_any(float x) {
    const int bits = __float_as_int(x);
    const unsigned key = bits < 0 ? ~static_cast<unsigned>(bits) : static_cast<unsigned>(bits) | 0x80000000u;
    const unsigned top = __reduce_max_sync(kAllLanes, key);
    return __uint_as_float(top & 0x80000000u ? top & 0x7fffffffu : ~top);
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

// The query rows of a thread block: up to `most` (batch row, query head) pairs of one segment and KV head.
struct QueryRows {
    const AttentionWork& a;
    const SegmentWork& seg;
    int group;    // query heads per KV head
    int kv_head;  //
    int first;    // index of the first query row in the segment
    int n;        // <= 0: the block has no rows

    __device__ QueryRows(const AttentionWork& work, const SegmentWork& segment, int most, int block)
        : a(work),
          seg(segment),
          group(work.n_head / work.n_head_kv),
          kv_head(blockIdx.x % work.n_head_kv),
          first(block * most),
          n(min(most, segment.n_rows * group - first)) {}
    __device__ QueryRows(const AttentionWork& work, const SegmentWork& segment, int most)
        : QueryRows(work, segment, most, blockIdx.x / work.n_head_kv) {}

    __device__ QueryRows(const AttentionWork& work, const SegmentWork& segment, int heads, int head, int first_row,
                         int n_rows)
        : a(work), seg(segment), group(heads), kv_head(head), first(first_row), n(n_rows) {}

    // Index of the KV head over all layers.
    __device__ int head() const { return a.layer * a.n_head_kv + kv_head; }
    // Index of row r of the block in q and out, [n, n_head].
    __device__ size_t output(int r) const {
        return static_cast<size_t>(seg.row + (first + r) / group) * a.n_head + kv_head * group + (first + r) % group;
    }
    // Row r's row of the segment, and its position in the sequence.
    __device__ int token_row(int r) const { return (first + r) / group; }
    __device__ int position(int r) const { return seg.length + token_row(r); }
};

// The run that contains a token of n_runs runs.
__device__ inline int find_run(const Run* runs, int n_runs, int token) {
    int i = min(token / kv::kPageTokens, n_runs - 1);  // a run has at most one page of tokens
    while (i + 1 < n_runs && runs[i + 1].start <= token) {
        ++i;
    }
    return i;
}

// Brings a head's part of a page to the L2 cache.
__device__ inline void prefetch_page(const Run& run, const kv::PageFormat& f, int head, int lane) {
    constexpr int kLine = 128;
    const uint8_t* const page = run.block + static_cast<size_t>(head) * f.page_bytes;
    for (int i = lane * kLine; i < static_cast<int>(f.page_bytes); i += 32 * kLine) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(page + i));
    }
}

// Called first and last by the kernel of the tokens outside pages. It is queued directly after the page kernel, if
// there is one, and takes the places that its blocks leave: those of pages take longer, so they start first. The first
// block waits for the page kernel, so that the kernel ends after it; the other blocks leave their places to blocks that
// have not started.
__device__ inline void begin_beside_pages(const AttentionWork& a) {
    if (a.n_page_splits > 0) {
        beside_previous();
    } else {
        after_previous();
    }
}
__device__ inline void end_beside_pages(const AttentionWork& a) {
    const bool first = (blockIdx.x | blockIdx.y | blockIdx.z) == 0;
    if (a.n_page_splits > 0 && first) {
        after_previous();
    }
}

// The thread block's split of n_steps tiles or pages: [begin, end). One split has all of them.
struct SplitRange {
    int begin;
    int end;

    __device__ SplitRange(const AttentionWork& a, int n_steps, int n_splits) {
        const int split = blockIdx.y;
        const int each = (n_steps + n_splits - 1) / n_splits;
        const bool fixed = a.fixed_splits && n_splits > 1;
        begin = fixed ? InvariantSplits::begin(split) : split * each;
        end = min(fixed ? InvariantSplits::begin(split + 1) : begin + each, n_steps);
    }
};

// The address of a full-precision row: halves, or the blocks of a q8_0 ring. Rows have even addresses; bit 0 marks
// blocks.
struct ExactRow {
    unsigned long long bits;

    __device__ ExactRow() = default;
    __device__ explicit ExactRow(unsigned long long tagged) : bits(tagged) {}
    __device__ explicit ExactRow(const uint16_t* halves) : bits(reinterpret_cast<unsigned long long>(halves)) {}
    __device__ static ExactRow of_blocks(const uint8_t* blocks) {
        return ExactRow(reinterpret_cast<unsigned long long>(blocks) | 1);
    }
    __device__ bool in_blocks() const { return (bits & 1) != 0; }
    __device__ const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(bits & ~1ull); }
};

// A token's full-precision row: in the sinks, an f16 page, the ring or the staged rows. head counts over all layers.
__device__ inline ExactRow exact_row(const SideWork& side, const SideShape& shape, int head, int d, int token) {
    if (token < side.n_sinks) {
        return ExactRow(side.sinks + (static_cast<size_t>(head) * shape.sinks + token) * d);
    }
    if (token < side.n_paged) {
        const Run& run = side.runs[find_run(side.runs, side.n_runs, token)];
        return ExactRow(
            reinterpret_cast<const uint16_t*>(run.block + static_cast<size_t>(head) * shape.format.page_bytes) +
            static_cast<size_t>(run.first + token - run.start) * d);
    }
    const int i = token - side.n_paged;
    if (i < side.n_ring) {
        const int at = side.ring_start + i;
        const size_t row =
            static_cast<size_t>(head) * shape.ring_rows + (at < shape.ring_rows ? at : at - shape.ring_rows);
        return side.ring_blocks != nullptr ? ExactRow::of_blocks(side.ring_blocks + row * shape.ring_row_bytes)
                                           : ExactRow(side.ring + row * d);
    }
    const size_t row = static_cast<size_t>(head) * shape.n_ubatch + i - side.n_ring;
    if (i - side.n_ring < side.staged.n_blocks && token >= shape.sinks) {
        return ExactRow::of_blocks(side.staged.blocks + row * shape.ring_row_bytes);
    }
    return ExactRow(side.staged.rows + row * d);
}

// Hadamard transform of rows in shared memory, times sqrt(kD). Called by all threads of the block.
template <int kRows, int kD>
__device__ void hadamard_rows(float* rows) {
    for (int half = 1; half < kD; half *= 2) {
        for (int i = threadIdx.x; i < kRows * kD / 2; i += blockDim.x) {
            const int first = i / half * 2 * half + i % half;
            const float u = rows[first];
            const float v = rows[first + half];
            rows[first] = u + v;
            rows[first + half] = u - v;
        }
        __syncthreads();
    }
}

// A warp's running softmax over tokens, per row: unnormalized sums of probabilities and of values.
template <int kRows, int kCh>
struct Softmax {
    float largest[kRows];   // score
    float sum[kRows];       // over the lane's tokens
    float out[kRows][kCh];  // of the lane's channels

    __device__ Softmax() {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            largest[r] = -INFINITY;
            sum[r] = 0;
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                out[r][c] = 0;
            }
        }
    }

    // Raises the largest score to at least `top`, equal in all lanes, and returns the number to subtract from scores.
    __device__ __forceinline__ float raise(int r, float top) {
        const float now = fmaxf(largest[r], top);
        const float base = now == -INFINITY ? 0.0f : now;
        if (now > largest[r]) {
            const float correction = __expf(largest[r] - base);
            sum[r] *= correction;
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                out[r][c] *= correction;
            }
            largest[r] = now;
        }
        return base;
    }

    // Adds the score of a token of each lane, -infinity without one, and returns its unnormalized probability.
    __device__ __forceinline__ float add(int r, float score) {
        const float probability = __expf(score - raise(r, warp_max_any(score)));
        sum[r] += probability;
        return probability;
    }
};

}  // namespace

}  // namespace lk::cuda
