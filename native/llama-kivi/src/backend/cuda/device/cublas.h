// A handle of cuBLAS; see cublas_library.h.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device/padding.h"
#include "base/memory.h"

namespace lk::cuda {

struct CublasLibrary;

// cuBLAS for the installed driver. Throws LK_DEVICE_ERROR, naming what is missing.
const CublasLibrary& cublas_library();

// Throws LK_DEVICE_ERROR unless status is CUBLAS_STATUS_SUCCESS.
void check_cublas(cublasStatus_t status, const char* call);

// y[n, y_rows] = x[n, n_cols] W^T + add * y for the first n_rows elements of each row of y; for `count` matrices w and
// y, which are w_stride and y_stride elements apart.
struct Gemm {
    const uint16_t* w;  // [n_rows, n_cols], halves
    const uint16_t* x;  // [n, n_cols], halves
    float* y;
    int n_rows;
    int n_cols;
    int n;
    int y_rows;
    float add;  // 0 or 1
    int count = 1;
    int64_t w_stride = 0;
    int64_t y_stride = 0;
};
// No padding: graphs compare descriptions byte by byte.
static_assert(kUnpadded<Gemm, void*, void*, void*, int, int, int, int, float, int, int64_t, int64_t>);

class Cublas {
public:
    Cublas(Memory& memory, cudaStream_t stream);
    ~Cublas();
    Cublas(const Cublas&) = delete;
    Cublas& operator=(const Cublas&) = delete;

    // From now on, matmuls are queued on this stream. They share a workspace: cuBLAS would allocate its own for a
    // graph, which makes the graph's parameters fixed.
    void use(cudaStream_t stream);
    void multiply(const Gemm& gemm);

private:
    void reserve_workspace();

    // cublasGemmEx and cublasGemmStridedBatchedEx; the header overloads the names.
    using GemmEx = cublasStatus_t(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n,
                                  int k, const void* alpha, const void* a, cudaDataType type_a, int stride_a,
                                  const void* b, cudaDataType type_b, int stride_b, const void* beta, void* c,
                                  cudaDataType type_c, int stride_c, cublasComputeType_t compute,
                                  cublasGemmAlgo_t algorithm);

    using GemmBatched = cublasStatus_t(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                       int n, int k, const void* alpha, const void* a, cudaDataType type_a,
                                       int stride_a, long long step_a, const void* b, cudaDataType type_b, int stride_b,
                                       long long step_b, const void* beta, void* c, cudaDataType type_c, int stride_c,
                                       long long step_c, int count, cublasComputeType_t compute,
                                       cublasGemmAlgo_t algorithm);

    Memory& memory_;
    cublasHandle_t handle_ = nullptr;
    cudaStream_t stream_;
    GemmEx* gemm_ex_;
    GemmBatched* gemm_batched_;
    Buffer<uint8_t> workspace_;  // allocated by the first matmul
};

}  // namespace lk::cuda
