// Kernel launches with programmatic dependent launch: a kernel may start before the preceding one ends, which hides its
// launch and its reads of data that does not change: weights, and what earlier passes have cached, because each
// pass begins with an upload, which orders it after them. Every kernel must call after_previous before it accesses
// other data.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace lk::cuda {

class Stream;  // device/stream.h

struct KernelLaunch {
    const void* kernel;
    dim3 grid;
    int threads;  // per block
    size_t shared_bytes;
    // Per argument: its address and its size.
    void** arguments;
    const size_t* sizes;
    size_t n_arguments;
};

// Queues a kernel, or records it for a graph.
cudaError_t queue_launch(const KernelLaunch& launch, Stream& stream);

// Check cudaGetLastError afterwards.
template <class... Parameters, class... Arguments>
void queue(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, Stream& stream,
           const Arguments&... values) {
    const auto run = [&](Parameters... parameters) {
        void* arguments[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
        const size_t sizes[] = {sizeof(Parameters)...};
        KernelLaunch launch{reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes, nullptr, nullptr, 0};
        launch.arguments = arguments;
        launch.sizes = sizes;
        launch.n_arguments = sizeof...(Parameters);
        static_cast<void>(queue_launch(launch, stream));
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

// The two halves of after_previous, for a kernel that lets the next one start before it waits, so that the next one
// prefetches weights while this one waits. The next kernel must not call beside_previous.
__device__ inline void start_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Replaces after_previous in a kernel that does not depend on the preceding one. All kernels before that one are done,
// because its blocks with work have called after_previous; the others return without it and have read nothing. One
// block of the kernel calls after_previous when it ends, so that later kernels wait for both.
__device__ inline void beside_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

}  // namespace lk::cuda
