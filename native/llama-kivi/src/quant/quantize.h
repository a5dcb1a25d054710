// Quantizers of the weight formats, the inverse of dequantize_row. Scales are searched for the least error.
#pragma once

#include <cstdint>

#include "quant/blocks.h"

namespace lk {

// Quantizes a row of n elements. n is a multiple of the type's block_elements; blocks needs no alignment. Every x must
// be finite and, for types with half scales, at most 65504 in magnitude (find_unfit checks it). Equal x give equal
// bytes on every processor. Throws LK_UNSUPPORTED for an unknown type.
void quantize_row(WeightType type, const float* x, int64_t n, void* blocks);

// Index of the first element that the type cannot represent (not finite, or beyond the range of its scales), or -1.
int64_t find_unfit(WeightType type, const float* x, int64_t n);

}  // namespace lk
