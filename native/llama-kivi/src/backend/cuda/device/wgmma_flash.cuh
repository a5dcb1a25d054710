// Asynchronous matrix multiplication of a warpgroup on tensor cores: compute capability 9.0a, CUDA 12 or later.
//
// Operands in shared memory are panels of 64 columns: rows of 64 halves, eight of them in 1,024 aligned bytes, 16-byte
// piece p of row r in place p ^ r % 8.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lk::cuda {

// Before the first multiplication of a group, and when other instructions have written the sums or an operand in
// registers.
__device__ inline void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// Waits for all groups but the last kPending.
template <int kPending>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Makes this thread's writes to shared memory, completed copies included, visible to multiplications after a barrier.
__device__ inline void fence_async_reads() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// Keeps the compiler from moving accesses to the sums across it.
template <int kTiles>
__device__ inline void wgmma_settle(float (&sums)[kTiles][4]) {
#pragma unroll
    for (float(&tile)[4] : sums) {
        asm volatile("" : "+f"(tile[0]), "+f"(tile[1]), "+f"(tile[2]), "+f"(tile[3])::"memory");
    }
}

// Of the warpgroup: raises or lowers the registers of its threads.
template <int kRegisters>
__device__ inline void raise_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ inline void lower_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

// Descriptor of an operand from its shared_address, which is that of a row in the first of eight.
//   The inner dimension is that of the columns: the next 16 elements are 32 bytes further, in the same panel.
//   It is that of the rows: the next 16 are 2,048 bytes further. panel_bytes: from a panel to the next.
__device__ inline uint64_t wgmma_operand(unsigned address, unsigned panel_bytes = 16) {
    constexpr unsigned kSwizzle128 = 1u << 30;
    constexpr unsigned kEightRows = 1024 / 16;  // from eight rows to the next eight
    const unsigned low = (address >> 4) | (panel_bytes >> 4) << 16;
    return static_cast<uint64_t>(kSwizzle128 | kEightRows) << 32 | low;
}

// sums[64 x N] += a[64 x 16] b[16 x N] of halves. Warp w of the warpgroup has rows 16 w + g and 16 w + g + 8 for
// g = lane / 4, and columns 8 t + 2 j and 8 t + 2 j + 1 for j = lane % 4: sums[t][0] and [1] of the first row, [2] and
// [3] of the second one.

#define LK_SUMS_4(t) "+f"(sums[t][0]), "+f"(sums[t][1]), "+f"(sums[t][2]), "+f"(sums[t][3])
#define LK_SUMS_16(t) LK_SUMS_4(t), LK_SUMS_4(t + 1), LK_SUMS_4(t + 2), LK_SUMS_4(t + 3)
#define LK_SUMS_32(t) LK_SUMS_16(t), LK_SUMS_16(t + 4)
#define LK_SUMS_64(t) LK_SUMS_32(t), LK_SUMS_32(t + 8)

// Operands in shared memory; the inner dimension is that of the columns of both. add: 0 replaces the sums.
__device__ inline void wgmma_scores(float (&sums)[8][4], uint64_t a, uint64_t b, int add) {
    asm volatile(
        "{\n\t.reg .pred add;\n\tsetp.ne.s32 add, %34, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0;\n\t}\n"
        : LK_SUMS_32(0)
        : "l"(a), "l"(b), "r"(add));
}

// The left operand is in registers: of a warp's 16 rows, as mma.cuh has it. The inner dimension is that of b's rows.
__device__ inline void wgmma_values(float (&sums)[16][4], const unsigned (&a)[4], uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
        : LK_SUMS_64(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef LK_SUMS_4
#undef LK_SUMS_16
#undef LK_SUMS_32
#undef LK_SUMS_64

}  // namespace lk::cuda
