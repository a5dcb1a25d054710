// Launches of matmuls. plan/matmul_plan.h selects among them. All pointers are to device memory.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/plan/matmul_plan.h"

namespace lk::cuda {

// A vector in 8 bits; see make_codes.
struct VectorCodes {
    const int8_t* codes;
    const float2* blocks;
};
// Every y = x[n_cols] W^T. codes: of x, for weights that take them.
void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, cudaStream_t stream);
// Every y = x[n, n_cols] W^T, x in halves, for 1 < n <= few_columns(type): one read of the weights.
void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                  cudaStream_t stream);
// Every y = x[n, n_cols] W^T, x in halves, for quantized weights and n <= kTileColumns. sums[plan.n_sums()] and
// counts[plan.n_tiles], which are zero and are so again afterwards, are its own.
void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, cudaStream_t stream);
// out[n] = the elements of n_rows rows of n_cols, as halves.
void dequantize(WeightType type, const uint8_t* w, int64_t n, uint16_t* out, cudaStream_t stream);

}  // namespace lk::cuda
