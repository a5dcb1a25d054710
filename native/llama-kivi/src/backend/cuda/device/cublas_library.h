// Finds cuBLAS at run time: no driver brings it, and the versions of CUDA 11 to 13 are alike to its callers. Host code
// without CUDA.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace lk::cuda {

// The functions of cublas_v2.h that the backend calls.
struct CublasLibrary {
    std::string name;
    void* create;
    void* destroy;
    void* set_stream;
    void* set_workspace;
    void* gemm_ex;
    void* gemm_batched;
};

// File names of cuBLAS, newest first, for a driver of this CUDA version (12080: 12.8).
std::vector<std::string> cublas_names(int driver_version);

// Opens the first of these libraries that can be loaded; it stays open. Throws LK_DEVICE_ERROR, naming what is missing.
CublasLibrary open_cublas(std::span<const std::string> names);

}  // namespace lk::cuda
