// Barriers in shared memory between groups of threads that work at their own pace: compute capability 9.0.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend/cuda/device/copy_async.cuh"

namespace lk::cuda {

// A barrier is 8 bytes of shared memory, here given by their shared_address. A phase ends after `count` arrivals and
// the bytes of copies that they announce; then the next begins. The phases have alternating parity; that of the first
// is 0. Initialized by one thread, before a barrier of the block.
__device__ inline void barrier_init(unsigned barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(count) : "memory");
}

// After barrier_init: copies see the barriers too.
__device__ inline void barrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;\n" ::: "memory");
}

// Publishes what this thread has written and read before.
__device__ inline void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

// The same, and announces bytes of copies.
__device__ inline void barrier_arrive(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits until the phase of this parity has ended; returns at once if it already has, as has parity 1 of a new barrier.
__device__ inline void barrier_wait(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n\t.reg .pred done;\n"
        "again:\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@done bra finished;\n\t"
        "bra again;\n"
        "finished:\n\t}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// A barrier as an object in shared memory.
class PhaseBarrier {
public:
    __device__ void init(int arrivals) { barrier_init(shared_address(&state_), arrivals); }
    __device__ void arrive() { barrier_arrive(shared_address(&state_)); }
    __device__ void wait(unsigned parity) { barrier_wait(shared_address(&state_), parity); }

private:
    uint64_t state_;
};

// A barrier of kThreads threads of the block; id: 1 to 15.
template <int kThreads>
__device__ inline void sync_threads_of(int id) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "n"(kThreads) : "memory");
}

}  // namespace lk::cuda
