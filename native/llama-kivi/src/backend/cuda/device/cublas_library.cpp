#include "backend/cuda/device/cublas_library.h"

#include <dlfcn.h>

#include <algorithm>

#include "base/error.h"

namespace lk::cuda {

namespace {

constexpr int kOldest = 11;
constexpr int kNewest = 13;

// Where CUDA's installer puts its libraries, which the loader does not always search.
constexpr const char* kInstalled = "/usr/local/cuda/lib64/";

std::string loader_error() {
    const char* const reason = dlerror();
    return reason != nullptr ? reason : "no reason given";
}

void* function(void* library, const std::string& name, const char* symbol) {
    void* const address = dlsym(library, symbol);
    LK_CHECK(address != nullptr, LK_DEVICE_ERROR,
             "the GPU cannot be used: %s has no function %s; install the cuBLAS of CUDA %d to %d", name.c_str(), symbol,
             kOldest, kNewest);
    return address;
}

}  // namespace

std::vector<std::string> cublas_names(int driver_version) {
    std::vector<std::string> names;
    for (int major = std::min(kNewest, driver_version / 1000); major >= kOldest; --major) {
        names.push_back(format("libcublas.so.%d", major));
        names.push_back(kInstalled + names.back());
    }
    return names;
}

CublasLibrary open_cublas(std::span<const std::string> names) {
    std::string tried;
    for (const std::string& name : names) {
        if (void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
            return {name,
                    function(library, name, "cublasCreate_v2"),
                    function(library, name, "cublasDestroy_v2"),
                    function(library, name, "cublasSetStream_v2"),
                    function(library, name, "cublasSetWorkspace_v2"),
                    function(library, name, "cublasGemmEx"),
                    function(library, name, "cublasGemmStridedBatchedEx")};
        }
        tried += (tried.empty() ? "" : "; ") + loader_error();
    }
    LK_FAIL(
        LK_DEVICE_ERROR,
        "the GPU cannot be used: cuBLAS was not loaded (%s). Install the cuBLAS of CUDA %d to %d, such as the package "
        "libcublas-12-8 of NVIDIA's repository, or add its folder to LD_LIBRARY_PATH",
        tried.c_str(), kOldest, kNewest);
}

}  // namespace lk::cuda
