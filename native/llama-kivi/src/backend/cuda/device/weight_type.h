// Block sizes of weight types as constants. C++17 without CUDA, for kernels and planners.
#pragma once

#include "quant/blocks.h"

namespace lk::cuda {

constexpr bool is_float(WeightType type) {
    return type == WeightType::F32 || type == WeightType::F16 || type == WeightType::BF16;
}

constexpr int block_elements(WeightType type) {
    return is_float(type) ? 1 : type >= WeightType::Q2_K ? kSuperBlock : kBlock;
}

constexpr int block_bytes(WeightType type) {
    return type == WeightType::F32                               ? 4
           : type == WeightType::F16 || type == WeightType::BF16 ? 2
           : type == WeightType::Q4_0                            ? sizeof(BlockQ4_0)
           : type == WeightType::Q4_1                            ? sizeof(BlockQ4_1)
           : type == WeightType::Q5_0                            ? sizeof(BlockQ5_0)
           : type == WeightType::Q5_1                            ? sizeof(BlockQ5_1)
           : type == WeightType::Q8_0                            ? sizeof(BlockQ8_0)
           : type == WeightType::Q2_K                            ? sizeof(BlockQ2_K)
           : type == WeightType::Q3_K                            ? sizeof(BlockQ3_K)
           : type == WeightType::Q4_K                            ? sizeof(BlockQ4_K)
           : type == WeightType::Q5_K                            ? sizeof(BlockQ5_K)
                                                                 : sizeof(BlockQ6_K);
}

}  // namespace lk::cuda
