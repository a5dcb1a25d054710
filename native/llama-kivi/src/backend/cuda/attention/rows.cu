// Attention of few query rows over tokens stored row by row. Either full precision: pages of f16, or sinks, ring (f16
// or q8_0) and staged rows beside pages of codes. Or pages of q8_0 or q4_0, with queries and values in their rotated
// frame. Each warp processes 32 tokens at a time; warps synchronize only at the end.
#include "backend/cuda/attention/join_parts.cuh"
#include "backend/cuda/attention/row_tile.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// A segment's full-precision tokens in order: sinks, then tokens from page_tokens on. In an f16 cache page_tokens is 0,
// so these are all tokens.
struct ExactTokens {
    int n_sinks;
    int rest;  // the token after the sinks

    __device__ explicit ExactTokens(const SegmentWork& s)
        : n_sinks(min(s.k.n_sinks, s.page_tokens)), rest(s.page_tokens) {}
    __device__ int count(int n_tokens) const { return n_sinks + n_tokens - rest; }
    __device__ int token(int i) const { return i < n_sinks ? i : rest + i - n_sinks; }
};

// A segment's tokens in pages of q8_0 or q4_0.
struct PagedTokens {
    static constexpr int n_sinks = 0;
    static constexpr int rest = 0;
    int n;

    __device__ explicit PagedTokens(const SegmentWork& s) : n(s.page_tokens) {}
    __device__ int count(int) const { return n; }
    __device__ int token(int i) const { return i; }
};

// A token's row of q8_0 or q4_0 blocks.
__device__ const uint8_t* block_row(const SideWork& side, const SideShape& shape, int head, int token) {
    const Run& run = side.runs[find_run(side.runs, side.n_runs, token)];
    return run.block + static_cast<size_t>(head) * shape.format.page_bytes +
           static_cast<size_t>(run.first + token - run.start) * shape.format.row_bytes();
}

// kBits: bits per channel; 16 for full-precision rows. kRing: some of them may be in a q8_0 ring.
template <int kRows, int kCh, int kBits, bool kRing>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_rows_kernel(const AttentionWork a) {
    constexpr bool kExact = kBits == 16;
    if constexpr (kExact) {
        begin_beside_pages(a);
    } else {
        after_previous();
    }
    extern __shared__ __align__(16) float joined[];
    constexpr int kD = kCh * 32;

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        if constexpr (kExact) {
            end_beside_pages(a);
        }
        return;
    }
    const int n_splits = kExact ? a.n_splits : a.n_page_splits;
    const int head = rows.head();
    const int warp = warp_index();
    const int lane = threadIdx.x % 32;
    const int position = rows.position(rows.n - 1);  // of the last row
    const std::conditional_t<kExact, ExactTokens, PagedTokens> tokens(seg);
    const int count = tokens.count(position + 1);
    const int first_seen = a.window > 0 ? max(0, rows.position(0) + 1 - a.window) : 0;
    const int first_tile = first_seen > tokens.rest ? (tokens.n_sinks + first_seen - tokens.rest) / 32 : 0;
    const int n_tiles = (count + 31) / 32 - first_tile;
    const SplitRange range(a, n_tiles, n_splits);
    const int begin = first_tile + range.begin;
    const int end = first_tile + range.end;

    if (!kExact) {
        for (int i = threadIdx.x; i < kRows * kD; i += blockDim.x) {
            joined[i] = a.q[rows.output(min(i / kD, rows.n - 1)) * kD + i % kD];
        }
        __syncthreads();
        hadamard_rows<kRows, kD>(joined);
    }
    const float factor = kExact ? a.scale : a.scale * rsqrtf(static_cast<float>(kD));
    RowTile<kRows, kCh, kBits, kRing> tiles;
    tiles.lane = lane;
    tiles.window = a.window;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const int own = min(r, rows.n - 1);
        tiles.load_query(r, kExact ? a.q + rows.output(own) * kD : joined + r * kD, factor, rows.position(own));
    }
    Softmax<kRows, kCh> sum;

    for (int tile = begin + warp; tile < end; tile += kJoinWarps) {
        const int n = min(32, count - tile * 32);
        const int token = tokens.token(tile * 32 + min(lane, n - 1));
        const auto row_of = [&](const SideWork& side, const SideShape& shape) {
            if constexpr (kExact) {
                return exact_row(side, shape, head, kD, token).bits;
            } else {
                return reinterpret_cast<unsigned long long>(block_row(side, shape, head, token));
            }
        };
        tiles.add(n, token, row_of(seg.k, a.k), row_of(seg.v, a.v), sum);
    }
    join_warps<kRows, kCh, !kExact>(a, (kExact ? a.n_page_splits : 0) + blockIdx.y, sum, rows, nullptr, joined);
    if constexpr (kExact) {
        end_beside_pages(a);
    }
}

template <int kRows, int kD, int kBits, bool kRing>
AttentionFunction function() {
    return {reinterpret_cast<const void*>(attention_rows_kernel<kRows, kD / 32, kBits, kRing>), join_bytes(kRows, kD)};
}

template <int kBits, bool kRing = false>
AttentionFunction function_of_shape(const AttentionVariant& variant) {
    const bool one = variant.n_rows == 1;
    if (!one && variant.n_rows != kFewRows) {
        fail_variant(variant);
    }
    switch (variant.width) {
    case 64:
        return one ? function<1, 64, kBits, kRing>() : function<kFewRows, 64, kBits, kRing>();
    case 128:
        return one ? function<1, 128, kBits, kRing>() : function<kFewRows, 128, kBits, kRing>();
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction rows_function(const AttentionVariant& variant) {
    switch (variant.type) {
    case LK_CACHE_F16:
        return variant.kernel == AttentionKernel::ring_rows ? function_of_shape<16, true>(variant)
                                                            : function_of_shape<16>(variant);
    case LK_CACHE_Q8_0:
        return function_of_shape<8>(variant);
    case LK_CACHE_Q4_0:
        return function_of_shape<4>(variant);
    default:
        fail_variant(variant);
    }
}

}  // namespace lk::cuda
