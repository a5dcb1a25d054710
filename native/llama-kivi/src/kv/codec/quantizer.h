// KIVI quantizers: rows of one KV head into a page, and the reference dequantizer that tests and oracles use.
#pragma once

#include <cstdint>
#include <vector>

#include "base/half.h"
#include "kv/codec/kivi_format.h"

namespace lk::kv {

// Parameters of the refined recipes, fixed per (sequence, layer, KV head) at the first flush.
struct HeadTable {
    int exponent = 0;               // k of the byte scales
    std::vector<uint16_t> refined;  // [rows - D] 4-bit channels, ascending (keys of kivi2 and kivi3)
    std::vector<half_t> mu;         // [D] centre (values of kivi2 and kivi3)
    std::vector<half_t> centre;     // [D] subtracted from keys before they are quantized (Recipe::key_centre)
};

// In-place orthonormal Hadamard transform over blocks of the largest power of two that divides n. Its own inverse.
void hadamard(float* x, int n);

// Whether pages of this format need a head table.
constexpr bool has_table(const PageFormat& format) {
    return format.scale_kind == ScaleKind::byte_pair || format.scale_kind == ScaleKind::byte_token;
}

// Reserves the capacity that choose_head_table needs.
void reserve_lists(const PageFormat& format, HeadTable& table);

// Chooses a head table from the rows in the ring at the first flush. Does nothing for formats without one.
//   rows    [n_rows, D], finite; row i is token first + i of the sequence
//   sinks   tokens below this position are ignored
//   column  [n_rows] scratch
//   table   prepared by reserve_lists, so this allocates nothing
void choose_head_table(const PageFormat& format, const float* rows, int n_rows, int first, int sinks, float* column,
                       HeadTable& table) noexcept;
// The same; allocates its own scratch and table.
HeadTable choose_head_table(const PageFormat& format, const float* rows, int n_rows, int first, int sinks);

// Quantizes consecutive rows into a page, starting at its token `token`. Rows are finite: staging rejects others.
//   keys    exactly one token group: n_rows == G, token % G == 0
//   values  any n_rows
//   sinks   the first `sinks` rows do not count in the group's range; attention masks their codes
void quantize_rows(const PageFormat& format, const HeadTable& table, const float* rows, int n_rows, int token,
                   int sinks, uint8_t* page) noexcept;

// One row of n channels as a q8_0 ring stores it. Decoded elements are rounded to half, in which attention reads them.
// x: finite, within the range of half.
void encode_q8_row(const float* x, int n, uint8_t* blocks) noexcept;
void decode_q8_row(const uint8_t* blocks, int n, half_t* out) noexcept;
void decode_q8_row(const uint8_t* blocks, int n, float* out) noexcept;  // before rounding
// Whether all decoded elements are finite.
bool is_finite_q8_row(const uint8_t* blocks, int n) noexcept;

// Zeros tokens [first, 128) of a page. Scales of keys are zeroed from the next whole group on.
void clear_tokens(const PageFormat& format, int first, uint8_t* page) noexcept;

// Dequantizes one token of a page into out[D], element by element. This defines what a page means.
void dequantize_row(const PageFormat& format, const HeadTable& table, const uint8_t* page, int token, float* out);

}  // namespace lk::kv
