#include "backend/cuda/plan/matmul_plan.h"

#include <string>

#include "backend/cuda/plan/few_plan.h"
#include "backend/cuda/plan/matmul_launch.h"
#include "backend/cuda/plan/ordered_plan.h"
#include "backend/cuda/plan/quantized_wgmma_plan.h"
#include "backend/cuda/plan/stream_plan.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

std::string type_text(WeightType type) {
    const WeightTypeTraits* const traits = weight_type_traits(type);
    return traits != nullptr ? traits->name : format("type %u", static_cast<unsigned>(type));
}

bool is_known(WeightType type) {
    switch (type) {
    case WeightType::F32:
    case WeightType::F16:
    case WeightType::BF16:
    case WeightType::Q4_0:
    case WeightType::Q4_1:
    case WeightType::Q5_0:
    case WeightType::Q5_1:
    case WeightType::Q8_0:
    case WeightType::Q2_K:
    case WeightType::Q3_K:
    case WeightType::Q4_K:
    case WeightType::Q5_K:
    case WeightType::Q6_K:
        return true;
    }
    return false;
}

// Kernels read eight elements at a time, and whole blocks.
bool fits(WeightType type, int64_t n_cols) {
    return is_known(type) && n_cols > 0 && n_cols % std::max(8, block_elements(type)) == 0;
}

}  // namespace

bool supports_matmul(WeightType type, int64_t n_cols) {
    return fits(type, n_cols);
}

MatmulKernel select_matmul(WeightType type, int64_t n_cols, int n, const Processors& processors, bool invariant) {
    LK_CHECK(fits(type, n_cols) && n > 0, LK_UNSUPPORTED,
             "matmul: no CUDA kernel multiplies %s weights of %lld columns with %d tokens; rows must be whole blocks "
             "and a multiple of 8. Leave all layers on the CPU",
             type_text(type).c_str(), static_cast<long long>(n_cols), n);
    const int shared_bytes = processors.shared_bytes;
    const bool with_wgmma = processors.wgmma && takes_quantized_wgmma(type, n_cols);
    if (invariant) {
        if (is_float(type)) {
            // With wgmma, halves are read faster; other floats would have to be converted first.
            const bool few = n <= OrderedPlan::kFewColumns && !(processors.wgmma && type == WeightType::F16);
            return few ? MatmulKernel::ordered_few : MatmulKernel::ordered;
        }
        if (with_wgmma) {
            return MatmulKernel::quantized_wgmma;
        }
        return tile_columns(type, shared_bytes) > 0 ? MatmulKernel::tiles : MatmulKernel::ordered;
    }
    if (n == 1) {
        if (streams(type, n_cols, shared_bytes)) {
            return MatmulKernel::stream;
        }
        return takes_codes(type) ? MatmulKernel::vector_codes : MatmulKernel::vector;
    }
    if (type == WeightType::F16 && processors.wgmma && n <= FewPlan::kMostTokens) {
        return MatmulKernel::few_wgmma;
    }
    if (n <= few_columns(type)) {
        return MatmulKernel::few;
    }
    if (with_wgmma && n >= kQuantizedWgmmaFrom && n <= kQuantizedWgmmaMost) {
        return MatmulKernel::quantized_wgmma;
    }
    if (!is_float(type) && n <= kTileColumns && tile_stages(type, n, shared_bytes) >= TilePlan::kLeastStages) {
        return MatmulKernel::tiles;
    }
    return MatmulKernel::halves;
}

MatmulLaunch next_launch(std::span<const Product> products, int n, const Processors& processors, bool invariant) {
    const Tensor& first = *products[0].w;
    MatmulLaunch launch{select_matmul(first.type, first.n_cols, n, processors, invariant), 1};
    const bool of_halves = launch.kernel == MatmulKernel::halves || launch.kernel == MatmulKernel::ordered;
    if (of_halves && first.type != WeightType::F16) {
        return launch;  // converts a part of a matrix at a time
    }
    const auto fits = [&](const Tensor& w) {
        const bool together = launch.kernel == MatmulKernel::stream && processors.count > 1 &&
                              streams_together(first.type, w.type) &&
                              streams(w.type, w.n_cols, processors.shared_bytes);
        return w.n_cols == first.n_cols && (w.type == first.type || together);
    };
    const size_t most = std::min(products.size(), static_cast<size_t>(FewProducts::kMost));
    while (launch.count < most && fits(*products[launch.count].w)) {
        ++launch.count;
    }
    return launch;
}

GemmBatch GemmBatch::of(const FewProducts& products, int first) {
    const auto stride = [](const auto* from, const auto* to) {
        return static_cast<int64_t>(reinterpret_cast<intptr_t>(to) - reinterpret_cast<intptr_t>(from));
    };
    constexpr int64_t kAlignment = 16;  // bytes, of the copies of its kernels
    GemmBatch batch{1, 0, 0};
    for (int i = first + 1; i < products.count; ++i) {
        const int64_t w = stride(products.w[i - 1], products.w[i]);
        const int64_t y = stride(products.y[i - 1], products.y[i]);
        const bool fits = products.n_rows[i] == products.n_rows[first] && products.add[i] == products.add[first] &&
                          w > 0 && y > 0 && w % kAlignment == 0 && y % kAlignment == 0;
        const int64_t halves = w / static_cast<int64_t>(sizeof(uint16_t));
        const int64_t floats = y / static_cast<int64_t>(sizeof(float));
        if (!fits || (batch.count > 1 && (halves != batch.w_stride || floats != batch.y_stride))) {
            break;
        }
        batch = {batch.count + 1, halves, floats};
    }
    return batch;
}

TilePlan plan_tiles(WeightType type, const FewProducts& products, int n_cols, int n, const Processors& processors) {
    TilePlan plan{};
    for (int i = 0; i < products.count; ++i) {
        plan.n_tiles += (products.n_rows[i] + TilePlan::kRows - 1) / TilePlan::kRows;
    }
    plan.n_steps = (n_cols + TilePlan::kStepElements - 1) / TilePlan::kStepElements;
    plan.n_stages = tile_stages(type, n, processors.shared_bytes);
    plan.shared_bytes = plan.n_stages * TileStep::of(type).stage_bytes(column_tiles(n));
    plan.shares = Shares::of(plan.n_tiles * plan.n_steps, processors.count);
    return plan;
}

void fail_registers(const char* kernel, int n_registers, int expected) {
    LK_FAIL(
        LK_INTERNAL_ERROR,
        "%s: it is compiled for %d registers per thread instead of %d. Compile the CUDA plugin with another version "
        "of CUDA, or set LLAMA_KIVI_CUDA_WGMMA=0",
        kernel, n_registers, expected);
}

void fail_weights(const char* operation, WeightType type) {
    LK_FAIL(LK_INTERNAL_ERROR, "%s: no CUDA kernel is compiled for %s weights", operation, type_text(type).c_str());
}

}  // namespace lk::cuda
