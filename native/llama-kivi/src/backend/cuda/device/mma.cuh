// Matrix multiplication on tensor cores.
#pragma once

#include <cuda_runtime.h>

namespace lk::cuda {

// d[16 x 8] += a[16 x 16] b[16 x 8] on tensor cores; a and b are halves, d floats. With g = lane / 4 and j = lane % 4,
// a lane has rows g and g + 8 of a and d, column g of b, and columns 2 j and 2 j + 1 of d. Of the inner dimension, a0,
// a1 and b0 have elements 2 j and 2 j + 1; a2, a3 and b1 have 2 j + 8 and 2 j + 9.
__device__ inline void multiply(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// d[16 x 8] += a[16 x 32] b[32 x 8] of signed bytes `a` and bytes `b`, which are signed or not. Rows and columns of a
// lane are those above. Of the inner dimension, a0, a1 and b0 have elements 4 j to 4 j + 3; a2, a3 and b1 have 16 more.
__device__ inline void multiply_signed(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                       unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline void multiply_unsigned(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace lk::cuda
