// Warpgroup multiplication (wgmma) of compute capability 9.0: four warps multiply 64 rows at once, asynchronously. Only
// for files *_wgmma.cu, which are compiled for sm_90a alone. PTX ISA 8.0, "Asynchronous Warpgroup Level Matrix
// Instructions".
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lk::cuda {

// Halves in a row of an operand in shared memory: 128 bytes. Eight rows are 1,024 bytes, aligned to 1,024. The 16-byte
// piece p of row r lies at piece p ^ r % 8 (128-byte swizzle).
constexpr int kPanelHalves = 64;
constexpr int kPanelRowBytes = 2 * kPanelHalves;

// Descriptor of a K-major operand: a row is 64 consecutive elements of the inner dimension.
class PanelOperand {
public:
    __device__ explicit PanelOperand(const void* shared) {
        constexpr unsigned kUnused = 1u << 16;
        low_ = (static_cast<unsigned>(__cvta_generic_to_shared(shared)) & 0x3ffff) >> 4 | kUnused;
    }

    // The elements from `first` on, a multiple of 16.
    __device__ uint64_t from(int first) const {
        constexpr unsigned kSwizzle128 = 1u << 30;
        constexpr unsigned kEightRows = 8 * kPanelRowBytes / 16;
        return static_cast<uint64_t>(kSwizzle128 | kEightRows) << 32 | (low_ + 2 * first / 16);
    }

private:
    unsigned low_;
};

// Orders the thread's writes to shared memory, copies included once they are awaited, before a multiplication that
// reads them. A barrier must follow.
__device__ inline void fence_operands() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// Orders the warp's accesses to registers before the multiplications that follow.
__device__ inline void warpgroup_begin() {
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

// Ends a group of multiplications.
__device__ inline void warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// Waits for all groups of multiplications but the last kPending.
template <int kPending>
__device__ inline void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Changes the registers of the warpgroup's threads: to fewer, or to more when other warpgroups have given theirs.
template <int kRegisters>
__device__ inline void warpgroup_give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void warpgroup_take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

// Keeps the compiler from moving registers that a multiplication may still read or write.
template <int kCount>
__device__ inline void hold(float (&d)[kCount][4]) {
#pragma unroll
    for (float(&tile)[4] : d) {
        asm volatile("" : "+f"(tile[0]), "+f"(tile[1]), "+f"(tile[2]), "+f"(tile[3])::"memory");
    }
}

#define LK_SUMS(t) "+f"(d[t][0]), "+f"(d[t][1]), "+f"(d[t][2]), "+f"(d[t][3])
#define LK_SUMS_4(t) LK_SUMS(t), LK_SUMS(t + 1), LK_SUMS(t + 2), LK_SUMS(t + 3)
#define LK_SUMS_16(t) LK_SUMS_4(t), LK_SUMS_4(t + 4), LK_SUMS_4(t + 8), LK_SUMS_4(t + 12)

// d[64 x 8 kTiles] += a[64 x 16] b[16 x 8 kTiles] of halves. Warp w of the group has rows 16 w + g and 16 w + g + 8
// (see mma.cuh, also for a and each d[t]); b: a PanelOperand with one row per column of d.
__device__ inline void multiply_group(float (&d)[1][4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                      uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
        : LK_SUMS(0)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

__device__ inline void multiply_group(float (&d)[2][4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                      uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, 1, 1, 1, 0;"
        : LK_SUMS(0), LK_SUMS(1)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

__device__ inline void multiply_group(float (&d)[4][4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                      uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
        : LK_SUMS_4(0)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

__device__ inline void multiply_group(float (&d)[8][4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                      uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
        : LK_SUMS_4(0), LK_SUMS_4(4)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

__device__ inline void multiply_group(float (&d)[16][4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                      uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "
        "%60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
        : LK_SUMS_16(0)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

// The same with a in shared memory: a PanelOperand of 64 rows.
__device__ inline void multiply_group(float (&d)[1][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 "
        "{%0, %1, %2, %3}, "
        "%4, %5, 1, 1, 1, 0, 0;"
        : LK_SUMS(0)
        : "l"(a), "l"(b));
}

__device__ inline void multiply_group(float (&d)[2][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, 1, 1, 1, 0, 0;"
        : LK_SUMS(0), LK_SUMS(1)
        : "l"(a), "l"(b));
}

__device__ inline void multiply_group(float (&d)[4][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, 1, 1, 1, 0, 0;"
        : LK_SUMS_4(0)
        : "l"(a), "l"(b));
}

__device__ inline void multiply_group(float (&d)[8][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, 1, 1, 1, 0, 0;"
        : LK_SUMS_4(0), LK_SUMS_4(4)
        : "l"(a), "l"(b));
}

__device__ inline void multiply_group(float (&d)[16][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "
        "%60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, 0, 0;"
        : LK_SUMS_16(0)
        : "l"(a), "l"(b));
}

__device__ inline void multiply_group(float (&d)[32][4], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "
        "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "
        "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "
        "%118, %119, "
        "%120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, 1, 1, 1, 0, 0;"
        : LK_SUMS_16(0), LK_SUMS_16(16)
        : "l"(a), "l"(b));
}

#undef LK_SUMS_16
#undef LK_SUMS_4
#undef LK_SUMS

}  // namespace lk::cuda
