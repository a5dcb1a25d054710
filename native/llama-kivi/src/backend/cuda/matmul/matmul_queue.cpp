#include "backend/cuda/matmul/matmul_queue.h"

#include <algorithm>
#include <cstddef>

#include "backend/cuda/device/memory.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

constexpr size_t kDequantizedElements = size_t{64} << 20;  // of a large matrix, dequantized at a time

}  // namespace

void MatmulQueue::run(MatmulKernel kernel, std::span<const Product> products, const MatmulInput& input) {
    const Tensor& first = *products[0].w;
    LK_CHECK(first.n_cols == input.n_cols, LK_INTERNAL_ERROR, "matmul: weights have %lld columns, but rows have %d",
             static_cast<long long>(first.n_cols), input.n_cols);
    FewProducts few{};
    for (const Product& p : products) {
        few.w[few.count] = weights_.at(p.w->data);
        few.y[few.count] = p.y;
        few.add[few.count] = p.add;
        few.n_rows[few.count++] = static_cast<int>(p.w->n_rows);
    }
    switch (kernel) {
    case MatmulKernel::vector:
    case MatmulKernel::vector_codes:
        return multiply_vector(first.type, few, first.row_bytes, input.n_cols, input.x, input.codes, stream_);
    case MatmulKernel::few:
        return multiply_few(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, stream_);
    case MatmulKernel::tiles: {
        const TilePlan plan = plan_tiles(first.type, few, input.n_cols, input.n, processors_);
        grow(tile_sums_, memory_, plan.n_sums());
        grow(tile_counts_, memory_, plan.n_tiles);
        return multiply_tiles(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, plan,
                              tile_sums_.data(), tile_counts_.data(), stream_);
    }
    case MatmulKernel::halves:
        return multiply_halves(products[0], input);
    }
    fail_weights("matmul", first.type);
}

// Multiplies with cuBLAS. Weights that are not F16 are first converted to halves, a part at a time.
void MatmulQueue::multiply_halves(const Product& product, const MatmulInput& input) {
    const Tensor& w = *product.w;
    const uint8_t* data = weights_.at(w.data);
    const bool as_is = w.type == WeightType::F16;
    const int64_t step = as_is ? w.n_rows : std::max<int64_t>(1, static_cast<int64_t>(kDequantizedElements) / w.n_cols);
    for (int64_t row = 0; row < w.n_rows; row += step) {
        const int64_t count = std::min(step, w.n_rows - row);
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(data);
        if (!as_is) {
            grow(half_w_, memory_, count * w.n_cols);
            dequantize(w.type, data + row * w.row_bytes, count * w.n_cols, half_w_.data(), stream_);
            halves = half_w_.data();
        }
        const float one = 1;
        const float before = product.add ? 1 : 0;
        blas_.gemm_ex(CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(count), input.n, static_cast<int>(w.n_cols), &one,
                      halves, CUDA_R_16F, static_cast<int>(w.n_cols), input.halves, CUDA_R_16F,
                      static_cast<int>(w.n_cols), &before, product.y + row, CUDA_R_32F, static_cast<int>(w.n_rows),
                      CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    }
}

}  // namespace lk::cuda
