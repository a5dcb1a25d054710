// Launches of matmul kernels. plan/matmul_plan.h selects a kernel. All pointers are device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/plan/few_plan.h"
#include "backend/cuda/plan/matmul_plan.h"
#include "backend/cuda/plan/ordered_plan.h"
#include "backend/cuda/plan/quantized_wgmma_plan.h"
#include "backend/rows.h"

namespace lk::cuda {

// A vector quantized to 8 bits; see make_codes.
struct VectorCodes {
    const int8_t* codes;
    const float2* blocks;
};
// Matrices of one type, of a launch of multiply_stream.
struct StreamProducts {
    WeightType type;
    FewProducts products;
    size_t row_bytes;

    size_t bytes() const {
        size_t n_rows = 0;
        for (int i = 0; i < products.count; ++i) {
            n_rows += static_cast<size_t>(products.n_rows[i]);
        }
        return n_rows * row_bytes;
    }
};
// GEMV: y = rows[n_cols] W^T for every matrix, for types and widths of `streams`. parts: one, or two of
// streams_together. codes: the row in 8 bits, for weight types with takes_codes; null: the kernel evaluates the row, of
// a form of `streams_rows`, and quantizes it. It reports values that are not finite.
void multiply_stream(const StreamProducts* parts, int n_parts, int n_cols, const Rows& rows, VectorCodes codes,
                     const RowsWatch& watch, int n_processors, Stream& stream);
constexpr bool streams_rows(Rows::Form form) {
    return form == Rows::Form::plain || form == Rows::Form::rms_norm;
}
// The same for every type and width, with codes.
void multiply_vector(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const float* x,
                     VectorCodes codes, Stream& stream);
// GEMM: y = x[n, n_cols] W^T for every matrix, x in halves, 1 < n <= few_columns(type). Reads the weights once.
void multiply_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                  Stream& stream);
// GEMM: y = x[n, n_cols] W^T for every matrix, x in halves, quantized weights, n <= kTileColumns. Scratch:
// sums[plan.n_sums()], and counts[plan.n_tiles], which must be zero and is zero again afterwards.
void multiply_tiles(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                    const TilePlan& plan, float* sums, int* counts, Stream& stream);
// The same for Processors::wgmma, weights of takes_quantized_wgmma and n <= quantized_wgmma_columns(type), with x as
// make_lane_halves stores it. The order of summing does not depend on n. Scratch: sums[plan.n_sums(n rounded up to 8,
// 16, 32, 64 or 128)], and counts[plan.n_counts()], which must be zero and is zero again afterwards.
void multiply_quantized_wgmma(WeightType type, const QuantizedPlan& plan, OrderedProducts products, size_t row_bytes,
                              int n_cols, const uint16_t* x, int n, float* sums, int* counts, Stream& stream);
// GEMM: y = x[n, n_cols] W^T for every matrix, weights and x in halves, 1 < n <= FewPlan::kMostTokens; see
// Processors::wgmma. Scratch: sums[plan.n_sums()], and counts[plan.n_counts()], which must be zero and is zero again
// afterwards.
void multiply_few_wgmma(const FewPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                        float* sums, int* counts, Stream& stream);
// GEMM: y = x[n, n_cols] W^T for every matrix, weights and x in halves. The order of summing does not depend on n.
// Scratch: sums[plan.n_sums()].
void multiply_ordered(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                      float* sums, Stream& stream);
// The same bits with wgmma; see Processors. plan: of OrderedWgmmaPlan. Scratch: counts[n_counts(plan)] too, which must
// be zero and is zero again afterwards.
void multiply_ordered_wgmma(const OrderedPlan& plan, OrderedProducts products, int n_cols, const uint16_t* x, int n,
                            float* sums, int* counts, Stream& stream);
// The same bits for n <= OrderedPlan::kFewColumns, every matrix and float weights as they are.
void multiply_ordered_few(WeightType type, FewProducts products, size_t row_bytes, int n_cols, const uint16_t* x, int n,
                          Stream& stream);
// Dequantizes n_rows rows of n_cols to halves in out.
void dequantize(WeightType type, const uint8_t* w, int64_t n, uint16_t* out, Stream& stream);

}  // namespace lk::cuda
