// Groups matmuls with the same input into launches. Host code without CUDA.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cuda/plan/matmul_plan.h"

namespace lk::cuda {

struct MatmulLaunch {
    MatmulKernel kernel;
    size_t count;  // the first `count` products
};

// Returns the next launch: it computes the first product, and as many of the following ones as fit. The products share
// an input of n tokens. Throws like select_matmul.
MatmulLaunch next_launch(std::span<const Product> products, int n, const Processors& processors, bool invariant);

}  // namespace lk::cuda
