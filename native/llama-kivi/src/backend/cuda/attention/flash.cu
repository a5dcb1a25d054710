// Flash attention over every cache type.
#include "backend/cuda/attention/flash_kernel.cuh"

namespace lk::cuda {

namespace {

// eight: warps per block for many query rows. Four have the fewest instructions; eight hide the latency of pages of
// ggml blocks, which are not fetched ahead.
template <int kD>
AttentionFunction function_of_rows(const AttentionVariant& variant, bool eight) {
    using Split = FlashShape<kD, true, kAttentionWarps>;
    using Tall = FlashShape<kD, false, kAttentionWarps>;
    if (variant.n_rows == Split::kRows) {
        return function_of<Split>();
    }
    if (variant.n_rows == Tall::kRows) {
        if constexpr (kD == 64 || kD == 128) {
            if (eight) {
                return function_of<FlashShape<kD, false, 2 * kAttentionWarps>>();
            }
        }
        return function_of<Tall>();
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction flash_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    if (supports_flash_halves(variant, k, v)) {
        return flash_halves_function(variant);
    }
    const bool eight = k.blocks() || v.blocks();
    switch (variant.width) {
    case 64:
        return function_of_rows<64>(variant, eight);
    case 96:
        return function_of_rows<96>(variant, eight);
    case 128:
        return function_of_rows<128>(variant, eight);
    case 256:
        return function_of_rows<256>(variant, eight);
    }
    fail_variant(variant);
}

}  // namespace lk::cuda
