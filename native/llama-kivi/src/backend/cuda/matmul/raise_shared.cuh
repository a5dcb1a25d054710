// Shared memory of kernels that need more than 48 KiB.
#pragma once

#include <cuda_runtime_api.h>

namespace lk::cuda {

// Raises a kernel's limit of dynamic shared memory to the most that a thread block can have.
template <class Kernel>
bool raise_shared_bytes(Kernel kernel) {
    int device = 0;
    int bytes = 0;
    cudaFuncAttributes attributes{};
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess &&
           cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                bytes - static_cast<int>(attributes.sharedSizeBytes)) == cudaSuccess;
}

// Raises the limit, and gives multiprocessors their most shared memory while the kernel runs, so that blocks of the
// kernels before and after it fit beside its own.
template <class Kernel>
bool raise_shared_bytes_and_carveout(Kernel kernel) {
    return raise_shared_bytes(kernel) && cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                              cudaSharedmemCarveoutMaxShared) == cudaSuccess;
}

}  // namespace lk::cuda
