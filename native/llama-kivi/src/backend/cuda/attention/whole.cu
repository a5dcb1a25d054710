// Attention of one query row over a whole sequence: pages of codes, ring, sinks and staged rows in one thread block, so
// that short sequences need one launch and no partial results.
//
// A warp processes pages, or tiles of 32 rows, or both; warps synchronize only at the end. Warps with an extra page get
// no tiles: a page costs as much as four tiles. If there are pages, warp 0 gets no tiles, so that the shared memory of
// tiles leaves room for eight thread blocks per multiprocessor. With few sequences, a block has more warps: one for
// each page and for each tile of a usual ring.
//   pages       pages_row.cuh
//   q8_0 rings  ring_blocks.cuh, copied to shared memory a tile ahead
//   halves      row_tile.cuh: f16 rings, sinks, staged rows
#include "backend/cuda/attention/join_parts.cuh"
#include "backend/cuda/attention/page_codes.cuh"
#include "backend/cuda/attention/pages_row.cuh"
#include "backend/cuda/attention/ring_blocks.cuh"
#include "backend/cuda/attention/row_tile.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/plan/exact_rows.h"

namespace lk::cuda {

namespace {

// Without pages: all tokens are rows, or another kernel reads the pages.
struct NoPages {};

// Undoes the rotation of a warp's values: a Hadamard transform over lanes and their channels, and the centre.
template <int kCh>
__device__ __forceinline__ void unrotate(const uint16_t* centre, int lane, Softmax<1, kCh>& sum) {
    float(&x)[kCh] = sum.out[0];
    hadamard_row<kCh>(lane, x);
    const float mass = warp_sum(sum.sum[0]);
#pragma unroll
    for (int c = 0; c < kCh; ++c) {
        x[c] = x[c] * rsqrtf(kCh * 32.0f) + mass * half_bits_to_float(centre[lane * kCh + c]);
    }
}

// Adds tiles first, first + step and so on, up to `end`, of a q8_0 ring. The caller has queued the first tile's copies.
template <int kD>
__device__ __forceinline__ void attend_ring(const RingBlocks<kD>& own, const AttentionWork& a, const QueryRows& rows,
                                            const typename RingBlocks<kD>::Rows& k,
                                            const typename RingBlocks<kD>::Rows& v, int first, int end, int step,
                                            Softmax<1, 4>& sum) {
    typename RingBlocks<kD>::Query q;
    own.load_query(a.q + rows.output(0) * kD, a.scale, q);
    for (int tile = first; tile < end; tile += step) {
        const bool more = tile + step < end;
        copy_wait<1>();
        __syncwarp();
        const float score = own.score(own.keys() + k.tile(tile) % 16, q);
        __syncwarp();  // all lanes are done with the keys
        if (more) {
            own.fetch(k, tile + step, own.keys());
        }
        copy_commit();
        const int token = own.own_token();
        own.probabilities()[token] = sum.add(0, tile * 32 + token < k.count ? score : -INFINITY);
        copy_wait<1>();
        __syncwarp();
        own.add(own.values() + v.tile(tile) % 16, sum.out[0]);
        __syncwarp();  // all lanes are done with the values
        if (more) {
            own.fetch(v, tile + step, own.values());
        }
        copy_commit();
    }
}

// Adds the ring's part, which has its channels in another order.
template <int kD, int kCh>
__device__ __forceinline__ void add_ring(const RingBlocks<kD>& own, const Softmax<1, 4>& ring, Softmax<1, kCh>& sum) {
    float* const channels = reinterpret_cast<float*>(own.shared);
    own.write(ring.out[0], channels);
    __syncwarp();
    const float weight = __expf(ring.largest[0] - sum.raise(0, ring.largest[0]));
    sum.sum[0] += weight * ring.sum[0];
#pragma unroll
    for (int c = 0; c < kCh; ++c) {
        sum.out[0][c] += weight * channels[own.lane * kCh + c];
    }
}

// Warps from this one on may have tiles.
template <class Pages>
constexpr int kFirstRowWarp = std::is_same_v<Pages, NoPages> ? 0 : 1;

// Shared memory of the warps' tiles of a q8_0 ring; page_warp_bytes of each of kJoinWarps warps follow.
template <class Pages, int kD, int kWarps>
__host__ __device__ inline int ring_bytes(const kv::PageFormat& k) {
    const int n_warps = kWarps - kFirstRowWarp<Pages>;
    return k.recipe.ring == kv::RowType::q8_0 ? n_warps * RingBlocks<kD>::kSharedBytes : 0;
}

// Pages: a RowWarp, or NoPages. kBlocks: thread blocks per multiprocessor.
template <class Pages, int kCh, int kWarps, int kBlocks>
__global__ void __launch_bounds__(kWarps * 32, kBlocks) attention_whole_kernel(const AttentionWork a) {
    extern __shared__ __align__(16) char shared[];
    constexpr int kD = kCh * 32;
    using Ring = RingBlocks<kD>;

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, 1);
    if (rows.n <= 0) {
        end_beside_pages(a);
        return;
    }
    const int warp = warp_index();
    const int lane = threadIdx.x % 32;
    const int head = rows.head();
    const int position = rows.position(0);
    const bool in_blocks = a.k.format.recipe.ring == kv::RowType::q8_0;
    const ExactRows exact(seg, a.k, a.window, in_blocks);
    const int n_ring_tiles = exact.ring_tiles();
    const int n_tiles = n_ring_tiles + exact.half_tiles();
    const auto [begin, end] = SplitRange(a, n_tiles, a.n_splits);
    constexpr int kFirstWarp = kFirstRowWarp<Pages>;
    const int paged_warps = kWarps == kJoinWarps ? seg.page_runs % kJoinWarps : seg.page_runs;
    const int first_warp = kFirstWarp == 0 ? 0 : max(kFirstWarp, paged_warps);
    const int step = kWarps - first_warp;
    const int first = warp < first_warp ? end : begin + warp - first_warp;

    const Ring own_ring(shared + max(warp - kFirstWarp, 0) * Ring::kSharedBytes, lane);
    const typename Ring::Rows k(seg.k, a.k, head, exact.ring_first, exact.staged, exact.ring_end);
    const typename Ring::Rows v(seg.v, a.v, head, exact.ring_first, exact.staged, exact.ring_end);
    const int ring_end = min(end, n_ring_tiles);
    // What earlier passes have cached does not change until the end of this one.
    const bool waits = exact.staged < exact.ring_end;
    if (waits) {
        begin_beside_pages(a);
    }
    if (first < ring_end) {
        own_ring.fetch(k, first, own_ring.keys());
        copy_commit();
        own_ring.fetch(v, first, own_ring.values());
        copy_commit();
    }
    if (!std::is_same_v<Pages, NoPages> && warp < seg.page_runs) {
        prefetch_page(seg.k.runs[warp], a.k.format, head, lane);
        prefetch_page(seg.v.runs[warp], a.v.format, head, lane);
    }
    if (!waits) {
        begin_beside_pages(a);
    }

    Softmax<1, kCh> sum;
    if constexpr (!std::is_same_v<Pages, NoPages>) {
        if (warp < seg.page_runs) {
            char* const own_shared =
                shared + ring_bytes<Pages, kD, kWarps>(a.k.format) + warp * page_warp_bytes(a.k.format, a.v.format, 1);
            attend_pages<Pages, true>(a, seg, rows, warp, seg.page_runs, own_shared, sum);
            if constexpr (Pages::kRotated) {
                unrotate(value_centre<Pages>(a, seg, head), lane, sum);
            }
        }
    }
    if (first < ring_end) {
        Softmax<1, 4> ring;
        attend_ring<kD>(own_ring, a, rows, k, v, first, ring_end, step, ring);
        add_ring(own_ring, ring, sum);
    }
    // The first of the warp's tiles that are halves.
    int half = first;
    while (half < n_ring_tiles) {
        half += step;
    }
    if (half < end) {
        // Computed again, which takes fewer registers than keeping it.
        const ExactRows halves(seg, a.k, a.window, in_blocks);
        RowTile<1, kCh, 16, false> tiles;
        tiles.lane = lane;
        tiles.window = a.window;
        tiles.load_query(0, a.q + rows.output(0) * kD, a.scale, position);
        for (int tile = half; tile < end; tile += step) {
            const int i = (tile - n_ring_tiles) * 32;
            const int n = min(32, halves.n_halves - i);
            const int token = halves.half_token(i + min(lane, n - 1));
            tiles.add(n, token, exact_row(seg.k, a.k, head, kD, token).bits,
                      exact_row(seg.v, a.v, head, kD, token).bits, sum);
        }
    }
    join_warps<1, kCh, false, kWarps>(a, a.n_page_splits + blockIdx.y, sum, rows, nullptr,
                                      reinterpret_cast<float*>(shared));
    end_beside_pages(a);
}

template <class Pages, int kCh, int kWarps, int kBlocks>
AttentionFunction function_of_blocks(const kv::PageFormat& k, const kv::PageFormat& v) {
    const int work = ring_bytes<Pages, kCh * 32, kWarps>(k) + kJoinWarps * page_warp_bytes(k, v, 1);
    const int joined = join_bytes(1, kCh * 32, kWarps);
    return {reinterpret_cast<const void*>(attention_whole_kernel<Pages, kCh, kWarps, kBlocks>),
            work > joined ? work : joined, kWarps * 32};
}

template <class Codes, int kCh>
AttentionFunction function_of_width(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    using Pages = RowWarp<1, Codes::kBits, Codes::kPaper, Codes::kValueBits, kCh>;
    constexpr int kBlocks = 8;  // as many as fit into the shared memory of compute capability 9.0
    switch (variant.n_warps) {
    case kAttentionWarps:
        return function_of_blocks<Pages, kCh, kAttentionWarps, kBlocks>(k, v);
    case kWholeWarps:
        return function_of_blocks<Pages, kCh, kWholeWarps, 2>(k, v);
    }
    fail_variant(variant);
}

template <class Codes>
AttentionFunction function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    switch (variant.width) {
    case 64:
        return function_of_width<Codes, 2>(variant, k, v);
    case 128:
        return function_of_width<Codes, 4>(variant, k, v);
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction whole_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    if (variant.type == LK_CACHE_F16) {
        constexpr int kBlocks = 6;
        return variant.width == 64 ? function_of_blocks<NoPages, 2, kAttentionWarps, kBlocks>(k, v)
                                   : function_of_blocks<NoPages, 4, kAttentionWarps, kBlocks>(k, v);
    }
    return select_page_codes(variant, [&](auto codes) { return function<decltype(codes)>(variant, k, v); });
}

}  // namespace lk::cuda
