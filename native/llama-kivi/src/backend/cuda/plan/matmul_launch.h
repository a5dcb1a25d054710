// Which products of a matmul are computed by one launch. Host code without CUDA.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cuda/plan/matmul_plan.h"

namespace lk::cuda {

struct MatmulLaunch {
    MatmulKernel kernel;
    size_t count;  // the first `count` products
};

// The launch for the first of products, which share their input of n tokens, and for as many of those after it as it
// takes. Throws as select_matmul does.
MatmulLaunch next_launch(std::span<const Product> products, int n, int shared_bytes);

}  // namespace lk::cuda
