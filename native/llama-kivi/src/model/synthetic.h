// Synthetic weights for files that declare tensors without data ("general.synthetic"), for benchmarks of speed and
// memory at any shape without a file of that size.
#pragma once

#include <memory>

#include "gguf/reader.h"
#include "model/weight_source.h"

namespace lk {

bool is_synthetic(const GgufFile& file);

// Matrices of random weights with standard deviation of about 0.02, seeded per tensor; vectors of ones.
std::shared_ptr<WeightSource> synthetic_weights();

}  // namespace lk
