#include "backend/cuda/attention/attention.h"

namespace lk::cuda {

AttentionFunction attention_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                     const kv::PageFormat& v) {
    switch (variant.kernel) {
    case AttentionKernel::flash:
        return flash_function(variant, k, v);
    case AttentionKernel::flash_wgmma:
#ifdef LK_CUDA_WGMMA
        return flash_wgmma_function(variant, k, v);
#else
        break;
#endif
    case AttentionKernel::rows:
    case AttentionKernel::ring_rows:
    case AttentionKernel::block_pages:
        return rows_function(variant);
    case AttentionKernel::ring_group:
        return ring_group_function(variant);
    case AttentionKernel::whole:
        return whole_function(variant, k, v);
    case AttentionKernel::pages:
        return pages_function(variant, k, v);
    case AttentionKernel::pages_row:
        return pages_row_function(variant, k, v);
    case AttentionKernel::none:
        break;
    }
    fail_variant(variant);
}

}  // namespace lk::cuda
