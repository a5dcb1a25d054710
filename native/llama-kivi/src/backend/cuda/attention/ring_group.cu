// Decode attention of grouped query heads, one token per sequence, over the tokens outside pages: a q8_0 ring, and
// sinks and the token itself in halves. Each warp processes tiles of 32 rows of the ring, copied to shared memory a
// tile ahead, and adds the halves of one query row; warps synchronize only at the end.
#include "backend/cuda/attention/join_parts.cuh"
#include "backend/cuda/attention/ring_group.cuh"
#include "backend/cuda/attention/row_tile.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/plan/exact_rows.h"

namespace lk::cuda {

namespace {

// Adds a row's state to one in shared memory, float [kD + 2]. Called by all lanes of a warp.
template <int kCh>
__device__ __forceinline__ void add_state(const Softmax<1, kCh>& own, int lane, float* to) {
    const float mass = warp_sum(own.sum[0]);
    const float largest = fmaxf(to[0], own.largest[0]);
    const float base = largest == -INFINITY ? 0.0f : largest;
    const float weight = __expf(own.largest[0] - base);
    const float before = __expf(to[0] - base);
    const float total = before * to[1] + weight * mass;
    float x[kCh];
    read_channels<kCh>(to + 2 + lane * kCh, x);
#pragma unroll
    for (int c = 0; c < kCh; ++c) {
        x[c] = before * x[c] + weight * own.out[0][c];
    }
    __syncwarp();  // all lanes have read
    write_channels<kCh>(x, kCh, to + 2 + lane * kCh);
    if (lane == 0) {
        to[0] = largest;
        to[1] = total;
    }
}

template <int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32, 4) attention_ring_group_kernel(const AttentionWork a) {
    begin_beside_pages(a);
    extern __shared__ __align__(16) char shared[];
    constexpr int kD = kCh * 32;
    using Group = RingGroup<kD>;
    static_assert(kJoinWarps == kFewRows);  // each warp has the halves of one query row

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, kFewRows);
    if (rows.n <= 0) {
        end_beside_pages(a);
        return;
    }
    const int warp = warp_index();
    const int lane = threadIdx.x % 32;
    const int head = rows.head();
    const ExactRows exact(seg, a.k, a.window, true);
    const int n_ring_tiles = exact.ring_tiles();
    const auto [begin, end] = SplitRange(a, n_ring_tiles + exact.half_tiles(), a.n_splits);
    const int ring_end = min(end, n_ring_tiles);
    const int first = begin + warp;

    const Group own(shared + warp * Group::kSharedBytes, lane);
    const typename Group::Blocks::Rows k(seg.k, a.k, head, exact.ring_first, exact.staged, exact.ring_end);
    const typename Group::Blocks::Rows v(seg.v, a.v, head, exact.ring_first, exact.staged, exact.ring_end);
    if (first < ring_end) {
        own.clear();
        own.blocks.fetch(k, first, own.blocks.keys());
        copy_commit();
        own.blocks.fetch(v, first, own.blocks.values());
        copy_commit();
    }
    Softmax<1, kCh> halves;
    const int first_half = max(begin, n_ring_tiles);
    if (first_half < end && warp < rows.n) {
        RowTile<1, kCh, 16, false> tiles;
        tiles.lane = lane;
        tiles.window = a.window;
        tiles.load_query(0, a.q + rows.output(warp) * kD, a.scale, rows.position(warp));
        for (int tile = first_half; tile < end; ++tile) {
            const int i = (tile - n_ring_tiles) * 32;
            const int n = min(32, exact.n_halves - i);
            const int token = exact.half_token(i + min(lane, n - 1));
            tiles.add(n, token, exact_row(seg.k, a.k, head, kD, token).bits,
                      exact_row(seg.v, a.v, head, kD, token).bits, halves);
        }
    }
    typename Group::Sums sums;
    if (first < ring_end) {
        typename Group::Queries q;
        own.load_queries(a, rows, q);
        for (int tile = first; tile < ring_end; tile += kJoinWarps) {
            const bool more = tile + kJoinWarps < ring_end;
            copy_wait<1>();
            __syncwarp();
            float score[4];
            own.multiply_keys(own.blocks.keys() + k.tile(tile) % 16, q, score);
            __syncwarp();  // all lanes are done with the keys
            if (more) {
                own.blocks.fetch(k, tile + kJoinWarps, own.blocks.keys());
            }
            copy_commit();
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                score[i] = tile * Group::kTokens + own.token(i) < k.count ? score[i] : -INFINITY;
            }
            own.update_softmax(score, sums);
            copy_wait<1>();
            __syncwarp();
            own.add_values(own.blocks.values() + v.tile(tile) % 16, sums);
            __syncwarp();  // all lanes are done with the values
            if (more) {
                own.blocks.fetch(v, tile + kJoinWarps, own.blocks.values());
            }
            copy_commit();
        }
    }
    __syncthreads();
    float* const parts = reinterpret_cast<float*>(shared);
    own.write(sums, warp_part<kFewRows, kD>(parts, warp, lane % 4));
    __syncthreads();
    if (first_half < end && warp < rows.n) {
        add_state(halves, lane, warp_part<kFewRows, kD>(parts, 0, warp));
    }
    join_parts<kFewRows, kD, false>(a, a.n_page_splits + blockIdx.y, rows, nullptr, parts);
    end_beside_pages(a);
}

template <int kCh>
AttentionFunction function() {
    const int work = kJoinWarps * RingGroup<kCh * 32>::kSharedBytes;
    const int joined = join_bytes(kFewRows, kCh * 32);
    return {reinterpret_cast<const void*>(attention_ring_group_kernel<kCh>), work > joined ? work : joined};
}

}  // namespace

AttentionFunction ring_group_function(const AttentionVariant& variant) {
    switch (variant.width) {
    case 64:
        return function<2>();
    case 128:
        return function<4>();
    }
    fail_variant(variant);
}

}  // namespace lk::cuda
