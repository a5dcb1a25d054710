// What the host asks of the kernels: plain functions that queue work on a stream. All pointers are to device memory.
// Shared by the backend (C++20) and the kernels (C++17, as the CUDA compiler wants). append/kernels.h,
// attention/attention.h and matmul/matmul.h are the same for their kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/plan/segments.h"
#include "backend/rows.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk::cuda {

// Where kernels report what is not finite. Places are numbers from 1 on, which the host gives to what a pass computes;
// *broken, 0 at first, becomes the place of what was found first.
struct Watch {
    int* broken;
    int place;
};
// What rows are made of, and the rows themselves, also if they are beyond the range of the form they are made in.
struct RowsWatch {
    int* broken;
    int x;
    int up;
    int made;
};

// ---- elementwise.cu

// out[n, n_cols] = rows `tokens` of a table.
void embed(WeightType type, const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n, int n_cols,
           float* out, const Watch& watch, cudaStream_t stream);
// out[n, dim] = the rows, dim a multiple of four.
void make_floats(const Rows& rows, int n, int dim, float* out, const RowsWatch& watch, cudaStream_t stream);
void make_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, cudaStream_t stream);
// One row in 8 bits, dim a multiple of 32: codes[dim], and for each 32 of them their scale and the sum of what they
// stand for.
void make_codes(const Rows& rows, int dim, int8_t* codes, float2* blocks, const RowsWatch& watch, cudaStream_t stream);
// Looks at x[n].
void check_finite(const float* x, int64_t n, const Watch& watch, cudaStream_t stream);

// ---- sample.cu

// tokens[n] from logits[n, n_vocab]; see sample_row.
void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws, int32_t* tokens,
            const Watch& watch, cudaStream_t stream);

}  // namespace lk::cuda
