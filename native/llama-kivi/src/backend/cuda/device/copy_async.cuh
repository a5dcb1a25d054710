// Asynchronous copies from global to shared memory.
#pragma once

#include <cuda_runtime.h>

namespace lk::cuda {

__device__ inline unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Copies 16 bytes to shared memory asynchronously. to: a shared_address.
__device__ inline void copy_async(unsigned to, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global));
}

__device__ inline void copy_async(void* shared, const void* global) {
    copy_async(shared_address(shared), global);
}

// Copies 4 or 8 bytes to shared memory asynchronously.
template <int kBytes>
__device__ inline void copy_async_small(void* shared, const void* global) {
    static_assert(kBytes == 4 || kBytes == 8);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(shared_address(shared)), "l"(global), "n"(kBytes));
}

__device__ inline void copy_async_word(void* shared, const void* global) {
    copy_async_small<4>(shared, global);
}

__device__ inline void copy_commit() {
    asm volatile("cp.async.commit_group;\n" ::);
}

// Waits for this thread's asynchronous copies, except the last kPending groups.
template <int kPending>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

// The same with a number known only at run time: the last `groups`, at most kMost.
template <int kMost>
__device__ inline void wait_for_all_but(int groups) {
    if constexpr (kMost > 0) {
        if (groups < kMost) {
            return wait_for_all_but<kMost - 1>(groups);
        }
    }
    copy_wait<kMost>();
}

// Copies the first `bytes` of 16 bytes asynchronously; the others become zeros.
__device__ inline void copy_async_some(void* shared, const void* global, int bytes) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes));
}

// Copies 16 bytes asynchronously if `wanted`, without a branch.
__device__ inline void copy_async_if(bool wanted, unsigned to, const void* global) {
    asm volatile(
        "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %2, 0;\n\t"
        "@wanted cp.async.cg.shared.global [%0], [%1], 16;\n\t}\n" ::"r"(to),
        "l"(global), "r"(static_cast<int>(wanted)));
}

__device__ inline void copy_async_if(bool wanted, void* shared, const void* global) {
    copy_async_if(wanted, shared_address(shared), global);
}

}  // namespace lk::cuda
