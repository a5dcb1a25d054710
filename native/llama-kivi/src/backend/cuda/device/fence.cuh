// Order of memory accesses between thread blocks.
#pragma once

#include <cuda_runtime.h>

namespace lk::cuda {

// Before an atomic operation, publishes the thread's earlier writes, and those of its block before a barrier, to the
// threads that observe the operation; after one, makes theirs visible. __threadfence also keeps all fences of the
// device in one order, which costs more.
__device__ inline void fence_device() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

}  // namespace lk::cuda
