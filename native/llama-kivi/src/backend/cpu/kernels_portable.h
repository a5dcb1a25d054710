// Portable kernels outside kernels_portable.cpp; see kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "llama_kivi.h"

namespace lk::cpu::portable {

float softmax_part(float* x, int n, float max);
float max_of(const float* x, int n);
float sum(const float* x, int n);
void half_row(const float* x, int64_t n, half_t* out);

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld);
void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc);
void score_floats(const float* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld);
void accumulate_floats(const float* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc);
void half_blocks(lk_cache_type type, const uint8_t* blocks, int n, half_t* out);
void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride);
void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias);
void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride);
void score_packed(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                  const float* step, const float* bias, int n_rows, float* scores, int ld);
void accumulate_packed(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits, const int8_t* w,
                       int w_stride, const float* step, const float* bias, int n_rows, float* acc, int acc_stride);
void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s);
float square_sum(const float* a, const float* b, int n);

}  // namespace lk::cpu::portable
