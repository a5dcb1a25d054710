// Asynchronous copies of boxes of a matrix to shared memory, and the barriers that they complete. Compute capability
// 9.0. Barriers are 8 bytes of shared memory, given by their shared_address.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/tensor_map.h"

namespace lk::cuda {

// A phase of a barrier ends after `count` arrivals and the bytes that they announce.
__device__ inline void barrier_init(unsigned barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(count) : "memory");
}

// After barrier_init, before the block's __syncthreads: copies see the barriers too.
__device__ inline void barrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;\n" ::: "memory");
}

__device__ inline void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

// Arrives and announces bytes of copies.
__device__ inline void barrier_arrive(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits for the end of the phase of this parity: 0 for the first phase. Parity 1 of a new barrier has ended.
__device__ inline void barrier_wait(unsigned barrier, unsigned parity) {
    unsigned done;
    do {
        asm volatile(
            "{\n\t.reg .pred done;\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, done;\n\t}\n"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (done == 0);
}

// Copies the box that starts at this row and column to shared memory aligned to 1,024 bytes. 16-byte piece p of row r
// of the box gets to piece p ^ r % 8 of 128-byte row r. map: in the kernel's arguments.
__device__ inline void copy_box(unsigned to, const TensorMap& map, int row, int column, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::
            "r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

}  // namespace lk::cuda
