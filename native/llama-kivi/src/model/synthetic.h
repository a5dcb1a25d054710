// Weights out of nothing, for files that declare tensors and hold none ("general.synthetic"): speed and memory can be
// measured for any shape without a file of its size.
#pragma once

#include "model/weight_source.h"

namespace lk {

bool is_synthetic(const GgufFile& file);

// Matrices of random weights of about 0.02, each tensor with others, and vectors of ones.
std::shared_ptr<WeightSource> synthetic_weights();

}  // namespace lk
