#include "backend/cuda/device/cublas.h"

#include <string>
#include <vector>

#include "backend/cuda/device/cublas_library.h"
#include "backend/cuda/device/memory.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

// What cuBLAS recommends: 32 MiB from compute capability 9.0 on.
size_t workspace_bytes() {
    int device = 0;
    int major = 0;
    LK_CUDA(cudaGetDevice(&device));
    LK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return size_t{major >= 9 ? 32u : 8u} << 20;
}

}  // namespace

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

Cublas::Cublas(Memory& memory, cudaStream_t stream) : memory_(memory), stream_(stream) {
    const CublasLibrary& library = cublas_library();
    gemm_ex_ = reinterpret_cast<GemmEx*>(library.gemm_ex);
    gemm_batched_ = reinterpret_cast<GemmBatched*>(library.gemm_batched);
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

void Cublas::use(cudaStream_t stream) {
    const CublasLibrary& library = cublas_library();
    check_cublas(reinterpret_cast<decltype(&cublasSetStream)>(library.set_stream)(handle_, stream), "cublasSetStream");
    if (workspace_.size() > 0) {
        // Each change of the stream resets the workspace.
        const auto set_workspace = reinterpret_cast<decltype(&cublasSetWorkspace)>(library.set_workspace);
        check_cublas(set_workspace(handle_, workspace_.data(), workspace_.size()), "cublasSetWorkspace");
    }
    stream_ = stream;
}

void Cublas::reserve_workspace() {
    if (workspace_.size() == 0) {
        workspace_ = Buffer<uint8_t>(memory_, workspace_bytes());
        use(stream_);
    }
}

void Cublas::multiply(const Gemm& g) {
    reserve_workspace();
    const float one = 1;
    if (g.count > 1) {
        check_cublas(gemm_batched_(handle_, CUBLAS_OP_T, CUBLAS_OP_N, g.n_rows, g.n, g.n_cols, &one, g.w, CUDA_R_16F,
                                   g.n_cols, g.w_stride, g.x, CUDA_R_16F, g.n_cols, 0, &g.add, g.y, CUDA_R_32F,
                                   g.y_rows, g.y_stride, g.count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     "cublasGemmStridedBatchedEx");
        return;
    }
    check_cublas(
        gemm_ex_(handle_, CUBLAS_OP_T, CUBLAS_OP_N, g.n_rows, g.n, g.n_cols, &one, g.w, CUDA_R_16F, g.n_cols, g.x,
                 CUDA_R_16F, g.n_cols, &g.add, g.y, CUDA_R_32F, g.y_rows, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

}  // namespace lk::cuda
