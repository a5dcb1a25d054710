// Flash attention for many query rows over an f16 cache: the kernel without its code for other types.
#include "backend/cuda/attention/flash_kernel.cuh"

namespace lk::cuda {

bool supports_flash_halves(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    const auto halves = [](const kv::PageFormat& f) {
        return f.type == LK_CACHE_F16 && f.recipe.ring == kv::RowType::f16;
    };
    const bool tall = variant.n_rows == flash_rows(variant.width, false);
    return halves(k) && halves(v) && tall && (variant.width == 64 || variant.width == 128);
}

AttentionFunction flash_halves_function(const AttentionVariant& variant) {
    return variant.width == 64 ? function_of<FlashShape<64, false, kAttentionWarps, true>>()
                               : function_of<FlashShape<128, false, kAttentionWarps, true>>();
}

}  // namespace lk::cuda
