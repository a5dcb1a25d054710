// Asynchronous copies of boxes of a matrix to shared memory: compute capability 9.0.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/device/tensor_map.h"

namespace lk::cuda {

// Copies the box that starts at this row and column to shared memory aligned to 1,024 bytes. 16-byte piece p of row r
// of the box gets to piece p ^ r % 8 of 128-byte row r. map: in the kernel's arguments. barrier: the phase that the
// copy's bytes complete.
__device__ inline void copy_box(unsigned to, const TensorMap& map, int row, int column, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::
            "r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

}  // namespace lk::cuda
