#include "backend/cuda/matmul/matmul_queue.h"

#include <algorithm>
#include <cstddef>

#include "backend/cuda/plan/ordered_wgmma_plan.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

constexpr size_t kDequantizedElements = size_t{64} << 20;  // of a large matrix, dequantized at a time

// Weights as they are, whose y have their rows.
OrderedProducts whole_products(const FewProducts& matrices) {
    OrderedProducts products{matrices, {}, true};
    std::copy_n(matrices.n_rows, matrices.count, products.y_rows);
    return products;
}

}  // namespace

void MatmulQueue::run(MatmulKernel kernel, std::span<const Product> products, const MatmulInput& input) {
    const Tensor& first = *products[0].w;
    LK_CHECK(first.n_cols == input.n_cols, LK_INTERNAL_ERROR, "matmul: weights have %lld columns, but rows have %d",
             static_cast<long long>(first.n_cols), input.n_cols);
    const FewProducts few = products_of(first.type, products);
    switch (kernel) {
    case MatmulKernel::stream:
        return run_stream(few, products, input);
    case MatmulKernel::vector:
    case MatmulKernel::vector_codes:
        return multiply_vector(first.type, few, first.row_bytes, input.n_cols, input.rows.x, input.codes, stream_);
    case MatmulKernel::few:
        return multiply_few(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, stream_);
    case MatmulKernel::ordered_few:
        return multiply_ordered_few(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, stream_);
    case MatmulKernel::tiles:
        return run_tiles(first.type, few, first.row_bytes, input);
    case MatmulKernel::quantized_wgmma:
#ifdef LK_CUDA_WGMMA
        return run_quantized_wgmma(first.type, whole_products(few), first.row_bytes, input);
#else
        break;
#endif
    case MatmulKernel::few_wgmma:
#ifdef LK_CUDA_WGMMA
        return run_few_wgmma(whole_products(few), input);
#else
        break;
#endif
    case MatmulKernel::ordered:
        return first.type == WeightType::F16 ? run_ordered(whole_products(few), input)
                                             : multiply_halves(kernel, products[0], input);
    case MatmulKernel::halves:
        return first.type == WeightType::F16 ? multiply_f16(few, input) : multiply_halves(kernel, products[0], input);
    }
    fail_weights("matmul", first.type);
}

FewProducts MatmulQueue::products_of(WeightType type, std::span<const Product> products) const {
    FewProducts few{};
    for (const Product& p : products) {
        if (p.w->type == type) {
            few.w[few.count] = weights_.at(p.w->data);
            few.y[few.count] = p.y;
            few.add[few.count] = p.add;
            few.n_rows[few.count++] = static_cast<int>(p.w->n_rows);
        }
    }
    return few;
}

void MatmulQueue::run_stream(const FewProducts& of_first_type, std::span<const Product> products,
                             const MatmulInput& input) {
    const Tensor& first = *products[0].w;
    StreamProducts parts[2] = {{first.type, of_first_type, first.row_bytes}, {}};
    const auto other =
        std::find_if(products.begin(), products.end(), [&first](const Product& p) { return p.w->type != first.type; });
    const bool two = other != products.end();
    if (two) {
        const Tensor& w = *other->w;
        parts[1] = {w.type, products_of(w.type, products), w.row_bytes};
    }
    multiply_stream(parts, two ? 2 : 1, input.n_cols, input.rows, input.codes, input.watch, processors_.count, stream_);
}

// The plan does not depend on the number of tokens, so the order of summing does not either.
void MatmulQueue::run_tiles(WeightType type, FewProducts products, size_t row_bytes, const MatmulInput& input) {
    const int most = invariant_ ? tile_columns(type, processors_.shared_bytes) : kTileColumns;
    for (int column = 0; column < input.n; column += most) {
        const int n = std::min(most, input.n - column);
        const TilePlan plan = plan_tiles(type, products, input.n_cols, n, processors_);
        stream_.grow(tile_sums_, plan.n_sums());
        stream_.grow(tile_counts_, plan.n_tiles);
        multiply_tiles(type, products, row_bytes, input.n_cols,
                       input.halves + static_cast<size_t>(column) * input.n_cols, n, plan, tile_sums_.data(),
                       tile_counts_.data(), stream_);
        for (int i = 0; i < products.count; ++i) {
            products.y[i] += static_cast<size_t>(n) * products.n_rows[i];
        }
    }
}

#ifdef LK_CUDA_WGMMA
void MatmulQueue::run_quantized_wgmma(WeightType type, OrderedProducts products, size_t row_bytes,
                                      const MatmulInput& input) {
    const int most = quantized_wgmma_columns(type);
    const int row_blocks = count_blocks(products.matrices, QuantizedPlan::kRows);
    const QuantizedPlan plan = QuantizedPlan::of(row_blocks, input.n_cols, processors_.count);
    stream_.grow(segment_sums_, plan.n_sums(most));
    stream_.grow(segment_counts_, plan.n_counts());
    for (int column = 0; column < input.n; column += most) {
        const int n = std::min(most, input.n - column);
        multiply_quantized_wgmma(type, plan, products, row_bytes, input.n_cols,
                                 input.lane_halves + static_cast<size_t>(column) * input.n_cols, n,
                                 segment_sums_.data(), segment_counts_.data(), stream_);
        for (int i = 0; i < products.matrices.count; ++i) {
            products.matrices.y[i] += static_cast<size_t>(n) * products.matrices.n_rows[i];
        }
    }
}

void MatmulQueue::run_few_wgmma(OrderedProducts products, const MatmulInput& input) {
    const int row_blocks = count_blocks(products.matrices, FewPlan::kRows);
    const FewPlan plan = FewPlan::of(row_blocks, input.n_cols, processors_.count);
    stream_.grow(segment_sums_, plan.n_sums());
    stream_.grow(segment_counts_, plan.n_counts());
    multiply_few_wgmma(plan, products, input.n_cols, input.halves, input.n, segment_sums_.data(),
                       segment_counts_.data(), stream_);
}
#endif

void MatmulQueue::run_ordered(OrderedProducts products, const MatmulInput& input) {
#ifdef LK_CUDA_WGMMA
    if (processors_.wgmma) {
        const int row_blocks = count_blocks(products.matrices, OrderedWgmmaPlan::rows(input.n));
        const OrderedPlan plan = OrderedWgmmaPlan::of(row_blocks, input.n_cols, input.n, processors_.count);
        stream_.grow(segment_sums_, plan.n_sums());
        stream_.grow(segment_counts_, OrderedWgmmaPlan::n_counts(plan));
        return multiply_ordered_wgmma(plan, products, input.n_cols, input.halves, input.n, segment_sums_.data(),
                                      segment_counts_.data(), stream_);
    }
#endif
    const int row_blocks = count_blocks(products.matrices, OrderedPlan::kRows);
    const OrderedPlan plan = OrderedPlan::of(row_blocks, input.n_cols, input.n, processors_);
    stream_.grow(segment_sums_, plan.n_sums());
    multiply_ordered(plan, products, input.n_cols, input.halves, input.n, segment_sums_.data(), stream_);
}

void MatmulQueue::multiply_f16(const FewProducts& matrices, const MatmulInput& input) {
    for (int i = 0; i < matrices.count;) {
        const GemmBatch batch = GemmBatch::of(matrices, i);
        stream_.multiply({reinterpret_cast<const uint16_t*>(matrices.w[i]), input.halves, matrices.y[i],
                          matrices.n_rows[i], input.n_cols, input.n, matrices.n_rows[i], matrices.add[i] ? 1.0f : 0.0f,
                          batch.count, batch.w_stride, batch.y_stride});
        i += batch.count;
    }
}

// Converts weights that are not F16 to halves, a part at a time, and multiplies with cuBLAS or multiply_ordered.
void MatmulQueue::multiply_halves(MatmulKernel kernel, const Product& product, const MatmulInput& input) {
    const Tensor& w = *product.w;
    const uint8_t* data = weights_.at(w.data);
    const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(kDequantizedElements) / w.n_cols);
    for (int64_t row = 0; row < w.n_rows; row += step) {
        const int count = static_cast<int>(std::min(step, w.n_rows - row));
        stream_.grow(half_w_, count * w.n_cols);
        dequantize(w.type, data + row * w.row_bytes, count * w.n_cols, half_w_.data(), stream_);
        const uint16_t* const halves = half_w_.data();
        float* const y = product.y + row;
        const int y_rows = static_cast<int>(w.n_rows);
        if (kernel == MatmulKernel::ordered) {
            const FewProducts part{{reinterpret_cast<const uint8_t*>(halves)}, {y}, {product.add}, {count}, {}, 1};
            run_ordered({part, {y_rows}, false}, input);
            continue;
        }
        stream_.multiply({halves, input.halves, y, count, input.n_cols, input.n, y_rows, product.add ? 1.0f : 0.0f});
    }
}

}  // namespace lk::cuda
