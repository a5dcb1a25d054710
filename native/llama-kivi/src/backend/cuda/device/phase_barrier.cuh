// Barriers in shared memory between groups of threads that work at their own pace: compute capability 9.0.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend/cuda/device/copy_async.cuh"

namespace lk::cuda {

// A phase ends when all expected threads have arrived; then the next begins. The phases have alternating parity; that
// of the first is 0.
class PhaseBarrier {
public:
    // Called by one thread, before a barrier of the block.
    __device__ void init(unsigned arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&state_)), "r"(arrivals)
                     : "memory");
    }
    // Publishes what this thread has written and read before.
    __device__ void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&state_)) : "memory");
    }
    // Waits for the end of the phase of a parity, if it is the current one.
    __device__ void wait(unsigned parity) {
        asm volatile(
            "{\n\t.reg .pred done;\n"
            "again:\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
            "@done bra finished;\n\t"
            "bra again;\n"
            "finished:\n\t}\n" ::"r"(shared_address(&state_)),
            "r"(parity)
            : "memory");
    }

private:
    uint64_t state_;
};

// A barrier of kThreads threads of the block; id: 1 to 15.
template <int kThreads>
__device__ inline void sync_threads_of(int id) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "n"(kThreads) : "memory");
}

}  // namespace lk::cuda
