// Quantizers of the weight formats: the inverse of dequantize_row, with the scales searched for the least error.
#pragma once

#include <cstdint>

#include "quant/blocks.h"

namespace lk {

// Writes the n elements of a row as blocks of a type. n is a multiple of the type's block_elements; blocks needs no
// alignment. Every x is finite and, for types with half scales, at most 65504 in size (see find_unfit).
// The same x give the same bytes on every processor. Throws LK_UNSUPPORTED for a number that is no type.
void quantize_row(WeightType type, const float* x, int64_t n, void* blocks);

// Index of the first element that the type cannot hold (not finite, or beyond its scales' range), or -1.
int64_t find_unfit(WeightType type, const float* x, int64_t n);

}  // namespace lk
