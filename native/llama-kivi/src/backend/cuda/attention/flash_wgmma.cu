// Flash attention with wgmma over every cache type.
#include "backend/cuda/attention/flash_wgmma_kernel.cuh"

namespace lk::cuda {

namespace {

template <class S>
AttentionFunction function_of() {
    return {reinterpret_cast<const void*>(attention_flash_wgmma_kernel<S>), WgmmaMemory<S>::kBytes, S::kThreads};
}

}  // namespace

AttentionFunction flash_wgmma_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                       const kv::PageFormat& v) {
    const auto halves = [](const kv::PageFormat& f) {
        return f.type == LK_CACHE_F16 && f.recipe.ring == kv::RowType::f16;
    };
    if (variant.width != 128) {
        fail_variant(variant);
    }
    return halves(k) && halves(v) ? function_of<WgmmaShape<128, true>>() : function_of<WgmmaShape<128, false>>();
}

}  // namespace lk::cuda
