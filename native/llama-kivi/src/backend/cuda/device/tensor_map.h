// Maps of matrices of halves, from which the GPU copies boxes to shared memory; see device/copy_box.cuh. Compute
// capability 9.0.
#pragma once

#include <cstdint>

namespace lk::cuda {

// Columns of a box: 128 bytes, the span of the swizzle.
constexpr int kBoxColumns = 64;

// A kernel argument, in the driver's format.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

// Describes a matrix [n_rows, n_cols] in device memory, aligned to 16 bytes, with n_cols a multiple of 8, by boxes of
// box_rows rows, at most 256. A box takes all of its shared memory; elements outside of the matrix are zeros. Throws
// LK_DEVICE_ERROR.
TensorMap map_halves(const void* halves, int n_rows, int n_cols, int box_rows);

}  // namespace lk::cuda
