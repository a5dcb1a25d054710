// The multiplications of attention with wgmma. Operands in shared memory are panels; see device/wgmma.cuh.
#pragma once

#include "backend/cuda/device/wgmma.cuh"

namespace lk::cuda {

namespace {

// Descriptor of an operand from its shared_address, which is that of a row in the first of eight.
//   The inner dimension is that of the columns: the next 16 elements are 32 bytes further, in the same panel.
//   It is that of the rows: the next 16 are 2,048 bytes further. panel_bytes: from a panel to the next.
__device__ inline uint64_t wgmma_operand(unsigned address, unsigned panel_bytes = 16) {
    constexpr unsigned kSwizzle128 = 1u << 30;
    constexpr unsigned kEightRows = 1024 / 16;  // from eight rows to the next eight
    const unsigned low = (address >> 4) | (panel_bytes >> 4) << 16;
    return static_cast<uint64_t>(kSwizzle128 | kEightRows) << 32 | low;
}

#define LK_SUMS(t) "+f"(sums[t][0]), "+f"(sums[t][1]), "+f"(sums[t][2]), "+f"(sums[t][3])
#define LK_SUMS_4(t) LK_SUMS(t), LK_SUMS(t + 1), LK_SUMS(t + 2), LK_SUMS(t + 3)

// Operands in shared memory; the inner dimension is that of the columns of both. add: 0 replaces the sums.
__device__ inline void wgmma_scores(float (&sums)[8][4], uint64_t a, uint64_t b, int add) {
    asm volatile(
        "{\n\t.reg .pred add;\n\tsetp.ne.s32 add, %34, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0;\n\t}\n"
        : LK_SUMS_4(0), LK_SUMS_4(4)
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
        : LK_SUMS_4(0), LK_SUMS_4(4), LK_SUMS_4(8), LK_SUMS_4(12)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef LK_SUMS_4
#undef LK_SUMS

}  // namespace

}  // namespace lk::cuda
