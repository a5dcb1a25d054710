// A handle of cuBLAS; see cublas_library.h.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

namespace lk::cuda {

struct CublasLibrary;

// cuBLAS for the installed driver. Throws LK_DEVICE_ERROR, naming what is missing.
const CublasLibrary& cublas_library();

// Throws LK_DEVICE_ERROR unless status is CUBLAS_STATUS_SUCCESS.
void check_cublas(cublasStatus_t status, const char* call);

// cublasGemmEx; the header overloads the name.
using CublasGemmEx = cublasStatus_t(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n,
                                    int k, const void* alpha, const void* a, cudaDataType type_a, int stride_a,
                                    const void* b, cudaDataType type_b, int stride_b, const void* beta, void* c,
                                    cudaDataType type_c, int stride_c, cublasComputeType_t compute,
                                    cublasGemmAlgo_t algorithm);

class Cublas {
public:
    explicit Cublas(cudaStream_t stream);
    ~Cublas();
    Cublas(const Cublas&) = delete;
    Cublas& operator=(const Cublas&) = delete;

    // cublasGemmEx without its handle.
    template <class... Arguments>
    void gemm_ex(Arguments... arguments) const {
        check_cublas(gemm_ex_(handle_, arguments...), "cublasGemmEx");
    }

private:
    cublasHandle_t handle_ = nullptr;
    CublasGemmEx* gemm_ex_;
};

}  // namespace lk::cuda
