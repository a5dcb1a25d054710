// Turns a weight type into a template argument. Host code without CUDA; C++17, because kernels include it too.
#pragma once

#include "backend/cuda/plan/matmul_plan.h"
#include "quant/blocks.h"

namespace lk::cuda {

// Calls f with the weight type as a constant: f(Constant<WeightType::Q4_K>{}). operation: for the error message if the
// type is unknown.
template <WeightType kType>
struct Constant {
    static constexpr WeightType value = kType;
};

template <class F>
void dispatch(const char* operation, WeightType type, F&& f) {
    switch (type) {
    case WeightType::F32:
        return f(Constant<WeightType::F32>{});
    case WeightType::F16:
        return f(Constant<WeightType::F16>{});
    case WeightType::BF16:
        return f(Constant<WeightType::BF16>{});
    case WeightType::Q4_0:
        return f(Constant<WeightType::Q4_0>{});
    case WeightType::Q4_1:
        return f(Constant<WeightType::Q4_1>{});
    case WeightType::Q5_0:
        return f(Constant<WeightType::Q5_0>{});
    case WeightType::Q5_1:
        return f(Constant<WeightType::Q5_1>{});
    case WeightType::Q8_0:
        return f(Constant<WeightType::Q8_0>{});
    case WeightType::Q2_K:
        return f(Constant<WeightType::Q2_K>{});
    case WeightType::Q3_K:
        return f(Constant<WeightType::Q3_K>{});
    case WeightType::Q4_K:
        return f(Constant<WeightType::Q4_K>{});
    case WeightType::Q5_K:
        return f(Constant<WeightType::Q5_K>{});
    case WeightType::Q6_K:
        return f(Constant<WeightType::Q6_K>{});
    }
    fail_weights(operation, type);
}

}  // namespace lk::cuda
