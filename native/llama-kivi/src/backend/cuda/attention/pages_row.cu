// Attention of one query row over whole pages of codes. When no other row shares the codes, dp4a comes closer to memory
// bandwidth than the tensor cores of pages.cu.
//
// Each warp processes its own pages; warps synchronize only at the end. A warp reads each code once for all query rows,
// from global memory directly into registers.
//   keys    32 tokens at a time: scales are folded into 8-bit weights, dp4a sums over quads of channels; a lane ends
//           with the score of its own token
//   values  a lane has kCh channels; probabilities times scales of the page's 128 tokens become 8-bit weights, once per
//           channel group
// Full-precision rows (sinks, ring, staged rows) are another split, computed by rows.cu; join.cu merges the splits.
#include "backend/cuda/attention/pages_row_keys.cuh"
#include "backend/cuda/attention/pages_row_values.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

template <int kRows, int kBits, bool kPaper, int kEdition, int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_pages_row_kernel(const AttentionWork a) {
    beside_previous();
    extern __shared__ __align__(16) char shared[];
    using Warp = RowWarp<kRows, kBits, kPaper, kEdition, kCh>;

    const SegmentWork& seg = a.segments[blockIdx.z];
    const kv::PageFormat& fk = a.k.format;
    const kv::PageFormat& fv = a.v.format;
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int head = rows.head();
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * fv.page_bytes;
    const uint8_t* k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const int n_sinks = seg.k.n_sinks;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const int per_split = (seg.page_runs + a.n_page_splits - 1) / a.n_page_splits;
    const int begin = blockIdx.y * per_split;
    const int end = min(begin + per_split, seg.page_runs);
    char* const own_shared = shared + warp * page_warp_bytes(fk, fv, kRows);
    const Warp own{fk, fv, reinterpret_cast<int8_t*>(own_shared),
                   reinterpret_cast<int8_t*>(own_shared) + kRows * Warp::kWeights, lane};
    const float k_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    const float v_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));

    typename Warp::Queries queries;
    own.load_queries(a, rows, k_table, k_factor, queries);
    int last[kRows];  // position of each row
    typename Warp::Output output;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        last[r] = rows.position(r);
        output.largest[r] = -INFINITY;
        output.sum[r] = 0;
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            output.out[r][c] = 0;
        }
    }

    for (int p = begin + warp; p < end; p += kJoinWarps) {
        const Run run = k_runs[p];
        const uint8_t* const k_page = run.block + k_offset;
        const uint8_t* const v_page = v_runs[p].block + v_offset;
        float v_scale[kTiles];
        own.load_value_scales(v_page, v_factor, v_scale);
        typename Warp::Scores score;
        own.multiply_keys(k_page, queries, score);
        own.update_softmax(run, n_sinks, a, last, score, output);
        typename Warp::Scale v_weights;
        own.fold_value_scales(v_page, v_factor, score, v_scale, v_weights);
        own.add_values(v_page, v_weights, output);
    }

    // Stage "merge".
    join_warps<kRows, kCh, Warp::kRotated>(a, blockIdx.y, output.largest, output.sum, output.out, rows,
                                           Warp::kRotated ? reinterpret_cast<const uint16_t*>(v_table + 4) : nullptr,
                                           reinterpret_cast<float*>(shared));
    after_previous();
}

template <int kBits, bool kPaper, int kEdition>
AttentionFunction function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    constexpr int kRows = 1;
    const int bytes = page_block_bytes(k, v, kRows);
    switch (variant.width) {
    case 64:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, kEdition, 2>), bytes};
    case 128:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, kEdition, 4>), bytes};
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction pages_row_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                     const kv::PageFormat& v) {
    const bool second = variant.edition == kv::kSecondEdition;
    switch (variant.type) {
    case LK_CACHE_KIVI2:
        return second ? function<2, false, 2>(variant, k, v) : function<2, false, 1>(variant, k, v);
    case LK_CACHE_KIVI4:
        return second ? function<4, false, 2>(variant, k, v) : function<4, false, 1>(variant, k, v);
    case LK_CACHE_KIVI3:
        return function<2, false, kThreeBitValues>(variant, k, v);
    case LK_CACHE_KIVI2_PAPER:
        return function<2, true, 1>(variant, k, v);
    case LK_CACHE_KIVI4_PAPER:
        return function<4, true, 1>(variant, k, v);
    default:
        fail_variant(variant);
    }
}

}  // namespace lk::cuda
