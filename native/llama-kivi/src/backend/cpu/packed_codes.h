// The kernels over packed codes for tables without their own: codes are unpacked to bytes, then multiplied.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kv/codec/kivi_format.h"

namespace lk::cpu {

constexpr int kUnitTokens = kv::kValueBlockTokens;
constexpr int kBlockChannels = kv::kValueBlockChannels;
constexpr int kMostUnits = 2;  // of an accumulate_packed

// Kernels::score_packed by a table's unpack_codes and dot_codes.
template <auto unpack_codes, auto dot_codes>
void unpack_and_score(const uint8_t* quads, int n_quads, int tile_tokens, int bits, const int8_t* w, int w_stride,
                      const float* step, const float* bias, int n_rows, float* scores, int ld) {
    constexpr int kMostCodes = 2 * kv::kMaxHeadSize * 32;  // every channel refined
    alignas(64) uint8_t codes[kMostCodes];
    unpack_codes(quads, n_quads, tile_tokens * bits / 2, bits, codes, 4 * tile_tokens, 32);
    for (int r = 0; r < n_rows; ++r) {
        std::fill_n(scores + static_cast<ptrdiff_t>(r) * ld, tile_tokens, 0.0f);
    }
    dot_codes(codes, 4 * tile_tokens, n_quads, tile_tokens, w, w_stride, step, bias, n_rows, scores, ld);
}

// Kernels::accumulate_packed by the same.
template <auto unpack_codes, auto dot_codes>
void unpack_and_accumulate(const uint8_t* units, size_t unit_bytes, int n_units, int n_blocks, int bits,
                           const int8_t* w, int w_stride, const float* step, const float* bias, int n_rows, float* acc,
                           int acc_stride) {
    alignas(64) uint8_t codes[kMostUnits * kUnitTokens * kv::kMaxHeadSize];
    const int channels = n_blocks * kBlockChannels;
    for (int i = 0; i < n_units; ++i) {
        unpack_codes(units + i * unit_bytes, n_blocks, kUnitTokens * bits, bits, codes + i * kUnitTokens * channels, 32,
                     4 * channels);
    }
    dot_codes(codes, 4 * channels, n_units * kUnitTokens / 4, channels, w, w_stride, step, bias, n_rows, acc,
              acc_stride);
}

}  // namespace lk::cpu
