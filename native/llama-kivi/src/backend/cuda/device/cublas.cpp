#include "backend/cuda/device/cublas.h"

#include <string>
#include <vector>

#include "backend/cuda/device/cublas_library.h"
#include "backend/cuda/device/memory.h"
#include "base/error.h"

namespace lk::cuda {

const CublasLibrary& cublas_library() {
    static const CublasLibrary library = [] {
        int driver = 0;
        LK_CUDA(cudaDriverGetVersion(&driver));
        const std::vector<std::string> names = cublas_names(driver);
        return open_cublas(names);
    }();
    return library;
}

void check_cublas(cublasStatus_t status, const char* call) {
    LK_CHECK(status == CUBLAS_STATUS_SUCCESS, LK_DEVICE_ERROR, "cuBLAS failed: status %d (%s of %s)", status, call,
             cublas_library().name.c_str());
}

Cublas::Cublas(cudaStream_t stream) {
    const CublasLibrary& library = cublas_library();
    gemm_ex_ = reinterpret_cast<CublasGemmEx*>(library.gemm_ex);
    check_cublas(reinterpret_cast<decltype(&cublasCreate)>(library.create)(&handle_), "cublasCreate");
    const cublasStatus_t status = reinterpret_cast<decltype(&cublasSetStream)>(library.set_stream)(handle_, stream);
    if (status != CUBLAS_STATUS_SUCCESS) {
        reinterpret_cast<decltype(&cublasDestroy)>(library.destroy)(handle_);  // the destructor does not run
    }
    check_cublas(status, "cublasSetStream");
}

Cublas::~Cublas() {
    reinterpret_cast<decltype(&cublasDestroy)>(cublas_library().destroy)(handle_);
}

}  // namespace lk::cuda
