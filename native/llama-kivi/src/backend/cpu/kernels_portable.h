// Portable kernels outside kernels_portable.cpp; see kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lk::cpu::portable {

void score_packed(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                  const float* step, const float* bias, int n_rows, float* scores, int ld);
void accumulate_packed(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits, const int8_t* w,
                       int w_stride, const float* step, const float* bias, int n_rows, float* acc, int acc_stride);

}  // namespace lk::cpu::portable
