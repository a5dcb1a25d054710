// How kernels are queued: each may start while the one before it ends, which hides its start and the first reads of
// what no kernel before it writes. In exchange every kernel calls after_previous before it reads or writes anything
// else.
#pragma once

#include <cuda_runtime_api.h>

namespace lk::cuda {

// Whether the device starts kernels early: from compute capability 9.0 on.
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

// arguments: the addresses of the kernel's.
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

// What went wrong is found by cudaGetLastError.
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
// Waits for all that earlier kernels write, and lets the next kernel start.
__device__ inline void after_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Instead of after_previous, for a kernel that needs nothing of the one before it: that one has called after_previous,
// so that what came before it is done. The kernel calls after_previous when it ends, for those behind it to be after
// both.
__device__ inline void beside_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

}  // namespace lk::cuda
