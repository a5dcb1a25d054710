// Errors for NaN and infinity: which operation produced them and, if it can be determined, why.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lk {

// Every function throws LK_NUMERIC_ERROR.

// A matmul with w gave a non-finite result from finite activations. Reads w to distinguish damaged weights from
// overflow.
[[noreturn]] void fail_product(const Tensor& w);

// A norm or activation gave NaN or infinity from finite input or, on a GPU, exceeded the range of halves. w: the matmul
// that reads the rows; null: the output norm.
[[noreturn]] void fail_rows(Rows::Form form, const Tensor* w);

// The embedding of one of the tokens is not finite.
[[noreturn]] void fail_embedding(const Tensor& table, std::span<const int32_t> tokens);

// Attention gave a non-finite result from finite queries, keys and values. layer: index in the model.
[[noreturn]] void fail_attention(int layer);

}  // namespace lk
