// Flash attention, stage "fetch codes": asynchronous copies of the codes and scales of a tile to shared memory, one
// tile ahead, so that dequantizing does not wait for global memory. plan/flash_codes.h has the ranges.
#pragma once

#include "backend/cuda/attention/flash_load.cuh"
#include "backend/cuda/plan/flash_codes.h"

namespace lk::cuda {

namespace {

template <class S>
__device__ void fetch_bytes(uint8_t* to, const uint8_t* from, int n) {
#pragma unroll 1
    for (int i = S::loader() * 16; i < n; i += S::kLoaders * 16) {
        copy_async(to + i, from + i);
    }
}

// to: codes, then scales, then zero points.
template <class S>
__device__ void fetch_codes(const PageFormat& f, const FlashCodes& range, const uint8_t* page, uint8_t* to) {
    uint8_t* const scales = to + FlashCodeBytes<S::kD>::kCodes;
    fetch_bytes<S>(to, page + range.codes, range.n_codes);
    fetch_bytes<S>(scales, page + f.scales_offset + range.scales, range.n_scales);
    if (FlashCodes::has_zeros(f)) {
        fetch_bytes<S>(scales + range.n_scales, page + f.zeros_offset + range.scales, range.n_scales);
    }
}

template <class S>
__device__ CodePointers fetched_codes(const FlashCodes& range, const uint8_t* from) {
    const uint8_t* const scales = from + FlashCodeBytes<S::kD>::kCodes - range.scales;
    return {from - range.codes, scales, scales + range.n_scales};
}

}  // namespace

}  // namespace lk::cuda
