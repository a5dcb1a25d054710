// Kernel launches with programmatic dependent launch: a kernel may start before the preceding one ends, which hides its
// launch and its reads of constant data (weights). Every kernel must call after_previous before it accesses other data.
#pragma once

#include <cuda_runtime_api.h>

namespace lk::cuda {

// Whether the device supports the early start: compute capability 9.0 or later.
inline bool starts_early() {
    static const bool early = [] {
        int device = 0;
        int major = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        return major >= 9;
    }();
    return early;
}

// arguments: addresses of the kernel's arguments.
inline cudaError_t queue_kernel(const void* kernel, dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
                                void** arguments) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = starts_early() ? 1 : 0;
    return cudaLaunchKernelExC(&config, kernel, arguments);
}

// Check cudaGetLastError afterwards.
template <class... Parameters, class... Arguments>
void queue(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
           const Arguments&... values) {
    const auto run = [&](Parameters... parameters) {
        void* arguments[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
        static_cast<void>(
            queue_kernel(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes, stream, arguments));
    };
    run(values...);
}

#ifdef __CUDACC__
// Waits for the writes of all earlier kernels and lets the next kernel start.
__device__ inline void after_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Replaces after_previous in a kernel that does not depend on the preceding one. All kernels before that one are done,
// because it has called after_previous itself. The kernel calls after_previous when it ends, so that later kernels wait
// for both.
__device__ inline void beside_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

}  // namespace lk::cuda
