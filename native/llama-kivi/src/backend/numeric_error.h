// What is said when an operation gives NaN or infinity: where, and, as far as that can be told, why.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lk {

// Each throws LK_NUMERIC_ERROR.

// A product with w was not finite, although its rows were. Reads w, to tell a damaged file from numbers that grew too
// large.
[[noreturn]] void fail_product(const Tensor& w);

// Rows made of finite numbers were not finite, or (on a GPU) beyond 16-bit floats. w: what they were made for; null:
// for the outputs.
[[noreturn]] void fail_rows(Rows::Form form, const Tensor* w);

// One of the tokens' rows of the table of embeddings was not finite.
[[noreturn]] void fail_embedding(const Tensor& table, std::span<const int32_t> tokens);

// Attention over finite queries, keys and values was not finite. layer: of the model.
[[noreturn]] void fail_attention(int layer);

}  // namespace lk
