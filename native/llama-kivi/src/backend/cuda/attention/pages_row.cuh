// One warp's attention of one query row over pages of codes with dp4a. A warp reads each code once, from global memory
// directly into registers.
//   keys    32 tokens at a time: scales are folded into 8-bit weights, dp4a sums over quads of channels; a lane ends
//           with the score of its own token
//   values  a lane has kCh channels; probabilities times scales of the page's 128 tokens become 8-bit weights, once per
//           channel group
#pragma once

#include "backend/cuda/attention/pages_row_keys.cuh"
#include "backend/cuda/attention/pages_row_values.cuh"

namespace lk::cuda {

namespace {

// Adds pages first, first + kJoinWarps and so on, up to `end`. own_shared: page_warp_bytes of the warp. Values are
// rotated if Warp::kRotated. kShort: skips tiles without tokens, which keeps loads of later tiles from starting early.
template <class Warp, bool kShort, int kRows, int kCh>
__device__ __forceinline__ void attend_pages(const AttentionWork& a, const SegmentWork& seg, const QueryRows& rows,
                                             int first, int end, char* own_shared, Softmax<kRows, kCh>& sum) {
    if (first >= end) {
        return;  // the tables of a sequence without pages are undefined
    }
    const int head = rows.head();
    const kv::PageFormat& fk = a.k.format;
    const kv::PageFormat& fv = a.v.format;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * fv.page_bytes;
    const uint8_t* k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const int n_sinks = seg.k.n_sinks;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const Warp own{fk, fv, reinterpret_cast<int8_t*>(own_shared),
                   reinterpret_cast<int8_t*>(own_shared) + kRows * Warp::kWeights, static_cast<int>(threadIdx.x % 32)};
    const float k_factor = Warp::kIsPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    const float v_factor = Warp::kIsPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));

    typename Warp::Queries queries;
    own.load_queries(a, rows, k_table, k_factor, queries);
    int last[kRows];  // position of each row
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        last[r] = rows.position(r);
    }
    for (int p = first; p < end; p += kJoinWarps) {
        const Run run = k_runs[p];
        const uint8_t* const k_page = run.block + k_offset;
        const uint8_t* const v_page = v_runs[p].block + v_offset;
        const int n_tokens = kShort ? run.first + run.count : kv::kPageTokens;
        float v_scale[kTiles];
        own.load_value_scales(v_page, v_factor, v_scale);
        typename Warp::Scores score;
        own.multiply_keys(k_page, n_tokens, queries, score);
        own.update_softmax(run, n_sinks, a, last, score, sum);
        typename Warp::Scale v_weights;
        own.fold_value_scales(v_page, v_factor, score, v_scale, v_weights);
        own.add_values(v_page, n_tokens, v_weights, sum);
    }
}

// The centre of a head's rotated values, half [D].
template <class Warp>
__device__ const uint16_t* value_centre(const AttentionWork& a, const SegmentWork& seg, int head) {
    return Warp::kRotated
               ? reinterpret_cast<const uint16_t*>(seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes + 4)
               : nullptr;
}

}  // namespace

}  // namespace lk::cuda
