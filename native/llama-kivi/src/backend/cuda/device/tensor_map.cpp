#ifdef LK_CUDA_WGMMA

#include "backend/cuda/device/tensor_map.h"

#include <cuda.h>
#include <dlfcn.h>

#include <cstring>

#include "base/error.h"

namespace lk::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's library is linked nowhere; the CUDA runtime has loaded it.
Encode encode_function() {
    void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
    void* const symbol = driver != nullptr ? dlsym(driver, "cuTensorMapEncodeTiled") : nullptr;
    LK_CHECK(symbol != nullptr, LK_DEVICE_ERROR,
             "the GPU cannot be used: its driver has no function cuTensorMapEncodeTiled; install a driver for CUDA 12 "
             "or later");
    return reinterpret_cast<Encode>(symbol);
}

}  // namespace

TensorMap map_halves(const void* halves, int n_rows, int n_cols, int box_rows) {
    static const Encode encode = encode_function();
    const cuuint64_t sizes[] = {static_cast<cuuint64_t>(n_cols), static_cast<cuuint64_t>(n_rows)};
    const cuuint64_t row_bytes = sizes[0] * sizeof(uint16_t);
    const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
    const cuuint32_t every[] = {1, 1};
    CUtensorMap map{};
    const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<void*>(halves), sizes,
                                   &row_bytes, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    LK_CHECK(status == CUDA_SUCCESS, LK_DEVICE_ERROR,
             "the GPU's driver failed: cuTensorMapEncodeTiled of %d x %d halves in boxes of %d rows: error %d", n_rows,
             n_cols, box_rows, static_cast<int>(status));
    TensorMap out;
    static_assert(sizeof(out) == sizeof(map));
    std::memcpy(&out, &map, sizeof(map));
    return out;
}

}  // namespace lk::cuda

#endif
