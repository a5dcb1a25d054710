// Weights out of nothing, for files that declare tensors and hold none ("general.synthetic"): speed and memory can be
// measured for any shape without a file of its size.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace lk {

// Fills `bytes` bytes of whole blocks with random weights of about 0.02. Another seed gives others.
void fill_synthetic(WeightType type, uint64_t seed, uint8_t* out, size_t bytes);

}  // namespace lk
