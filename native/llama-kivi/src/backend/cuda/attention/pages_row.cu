// Attention of one query row over whole pages of codes. When no other row shares the codes, dp4a comes closer to memory
// bandwidth than the tensor cores of pages.cu.
// Each warp processes its own pages; warps synchronize only at the end.
// Full-precision rows (sinks, ring, staged rows) are another split, computed by rows.cu; join.cu merges the splits.
#include "backend/cuda/attention/join_parts.cuh"
#include "backend/cuda/attention/page_codes.cuh"
#include "backend/cuda/attention/pages_row.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

template <int kRows, int kBits, bool kPaper, int kValueBits, int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_pages_row_kernel(const AttentionWork a) {
    extern __shared__ __align__(16) char shared[];
    using Warp = RowWarp<kRows, kBits, kPaper, kValueBits, kCh>;

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int warp = warp_index();
    const auto [begin, end] = SplitRange(a, seg.page_runs, a.n_page_splits);
    if (begin + warp < end) {
        prefetch_page(seg.k.runs[begin + warp], a.k.format, rows.head(), threadIdx.x % 32);
        prefetch_page(seg.v.runs[begin + warp], a.v.format, rows.head(), threadIdx.x % 32);
    }
    after_previous();
    Softmax<kRows, kCh> sum;
    attend_pages<Warp, false>(a, seg, rows, begin + warp, end,
                              shared + warp * page_warp_bytes(a.k.format, a.v.format, kRows), sum);
    join_warps<kRows, kCh, Warp::kRotated>(a, blockIdx.y, sum, rows, value_centre<Warp>(a, seg, rows.head()),
                                           reinterpret_cast<float*>(shared));
}

template <class Codes>
AttentionFunction function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    constexpr int kRows = 1;
    constexpr int kBits = Codes::kBits;
    constexpr bool kPaper = Codes::kPaper;
    constexpr int kValueBits = Codes::kValueBits;
    const int bytes = page_block_bytes(k, v, kRows);
    switch (variant.width) {
    case 64:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, kValueBits, 2>), bytes};
    case 128:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, kValueBits, 4>), bytes};
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction pages_row_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                     const kv::PageFormat& v) {
    return select_page_codes(variant, [&](auto codes) { return function<decltype(codes)>(variant, k, v); });
}

}  // namespace lk::cuda
