// The kernels over whole pages that are compiled: keys and values alike, heads of 64 and 128.
#include "backend/cuda/attention_pages.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

bool pages_apply(const kv::PageFormat& k, const kv::PageFormat& v) {
    return k.type == v.type && kv::is_kivi(k.type) && k.group >= 32 && (k.head_size == 64 || k.head_size == 128);
}

void attention_pages(const AttentionWork& a, cudaStream_t stream) {
    const bool wide = a.head_size == 128;
    switch (a.k.format.type) {
    case LK_CACHE_KIVI2:
        if (a.max_rows * (a.n_head / a.n_head_kv) > 1) {
            return attention_pages_mma(a, stream);
        }
        return wide ? launch_pages_rows<2, false, 4>(a, stream)
                    : launch_pages_rows<2, false, 2>(a, stream);
    case LK_CACHE_KIVI4:
        return wide ? launch_pages_rows<4, false, 4>(a, stream)
                    : launch_pages_rows<4, false, 2>(a, stream);
    case LK_CACHE_KIVI2_PAPER:
        return wide ? launch_pages_rows<2, true, 4>(a, stream)
                    : launch_pages_rows<2, true, 2>(a, stream);
    default:
        return wide ? launch_pages_rows<4, true, 4>(a, stream)
                    : launch_pages_rows<4, true, 2>(a, stream);
    }
}

}  // namespace lk::cuda
