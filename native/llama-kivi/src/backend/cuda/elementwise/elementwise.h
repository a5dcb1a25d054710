// Launches of embedding lookup, lazy rows and sampling. All pointers are device pointers. Included by the backend
// (C++20) and by the kernels (C++17).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/watch.h"
#include "backend/rows.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk::cuda {

// ---- rows.cu

// out[n, n_cols] = rows tokens[n] of a table.
void embed(WeightType type, const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n, int n_cols,
           float* out, const Watch& watch, Stream& stream);
// Evaluates rows into out[n, dim]; dim is a multiple of 4.
void make_floats(const Rows& rows, int n, int dim, float* out, const RowsWatch& watch, Stream& stream);
void make_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, Stream& stream);
// The same in the order of ToLaneHalves; dim is a multiple of 32.
void make_lane_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, Stream& stream);
// Quantizes one row to 8 bits: codes[dim], and per block of 32 its scale and the sum of its dequantized values. dim is
// a multiple of 32.
void make_codes(const Rows& rows, int dim, int8_t* codes, float2* blocks, const RowsWatch& watch, Stream& stream);
// Reports NaN or infinity in x[n].
void check_finite(const float* x, int64_t n, const Watch& watch, Stream& stream);

// ---- sample.cu

// Samples tokens[n] from logits[n, n_vocab] as sample_row does, which changes the logits; -1 for rows with keep_logits.
// samplings[n] and their recent tokens are device memory.
void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens, const Watch& watch,
            Stream& stream);

}  // namespace lk::cuda
