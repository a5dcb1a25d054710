// Loads operands of tensor cores from shared memory.
#pragma once

#include <cuda_runtime.h>

namespace lk::cuda {

// Loads four matrices of 8 x 8 halves. Lane l gives the address, in shared memory, of the 16 bytes of row l % 8 of
// matrix l / 8. With g = lane / 4 and j = lane % 4, out[i] has elements 2 j and 2 j + 1 of row g of matrix i.
__device__ inline void load_matrices(unsigned (&out)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address));
}

}  // namespace lk::cuda
