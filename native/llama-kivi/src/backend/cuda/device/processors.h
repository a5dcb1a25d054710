// Limits of a device. C++17 without CUDA, for kernels and planners.
#pragma once

namespace lk::cuda {

struct Processors {
    int count;
    int shared_bytes;    // most shared memory per thread block
    bool wgmma = false;  // kernels with wgmma are compiled in, and the device runs them (compute capability 9.0)
};

}  // namespace lk::cuda
