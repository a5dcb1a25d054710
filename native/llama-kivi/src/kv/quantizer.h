// KIVI quantizers: rows of one KV head into a page, and back (the definition that tests and oracles read).
#pragma once

#include <cstdint>
#include <vector>

#include "base/half.h"
#include "kv/kivi_format.h"
#include "quant/blocks.h"

namespace lk::kv {

// What the refined recipes fix per (sequence, layer, KV head) at the first flush.
struct HeadTable {
    int exponent = 0;               // k of the byte scales
    std::vector<uint16_t> refined;  // [D/4] channels with four bits, ascending (keys of kivi2)
    std::vector<half_t> mu;         // [D] centre (values of kivi2)
};

// In-place orthonormal Hadamard transform over blocks of the largest power of two that divides n. Its own inverse.
void hadamard(float* x, int n);

// The block type of q8_0 and q4_0 pages.
inline WeightType block_type(const PageFormat& format) {
    return format.bits == 8 ? WeightType::Q8_0 : WeightType::Q4_0;
}

// Whether heads have a table that their pages depend on.
constexpr bool has_table(const PageFormat& format) {
    return format.scale_kind == ScaleKind::byte_pair || format.scale_kind == ScaleKind::byte_token;
}

// Gives a table's lists the room that choose_head_table fills.
void reserve_lists(const PageFormat& format, HeadTable& table);

// Chooses what the refined recipes fix at the first flush, from the rows then in the ring. Other types: nothing.
//   rows    [n_rows, D], finite; row i is token first + i of the sequence
//   sinks   tokens below it are left out
//   column  [n_rows] to work in
//   table   as reserve_lists left it, so that nothing is allocated
void choose_head_table(const PageFormat& format, const float* rows, int n_rows, int first, int sinks, float* column,
                       HeadTable& table) noexcept;
// The same with memory of its own.
HeadTable choose_head_table(const PageFormat& format, const float* rows, int n_rows, int first, int sinks);

// Quantizes consecutive rows, which are finite (the backend refuses others when it stages them), into a page.
//   keys    exactly one token group: n_rows == G, token % G == 0
//   values  any n_rows
//   sinks   the first `sinks` rows stay out of the group's range; what is stored for them is masked in attention
void quantize_rows(const PageFormat& format, const HeadTable& table, const float* rows, int n_rows, int token,
                   int sinks, uint8_t* page) noexcept;

// Zeros what a page holds of tokens [first, 128). Keys: from the next whole group on.
void clear_tokens(const PageFormat& format, int first, uint8_t* page) noexcept;

// Dequantizes one token of a page into out[D]: the meaning of a page, one element at a time.
void dequantize_row(const PageFormat& format, const HeadTable& table, const uint8_t* page, int token, float* out);

}  // namespace lk::kv
