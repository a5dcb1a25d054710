// What is said when an operation gives NaN or infinity: where, and, as far as that can be told, why.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lk {

// Each throws LK_NUMERIC_ERROR.

// A product of finite rows with w was not finite. Reads w, to tell a damaged file from numbers that grew too large.
[[noreturn]] void fail_product(const Tensor& w);

// Rows made of finite numbers were not finite. w: what they were made for; null: for the outputs.
[[noreturn]] void fail_rows(const Rows& rows, const Tensor* w);

// A token's row of the table of embeddings was not finite.
[[noreturn]] void fail_embedding(const Tensor& table, int32_t token);

// Attention over finite queries, keys and values was not finite. layer: of the model.
[[noreturn]] void fail_attention(int layer);

}  // namespace lk
