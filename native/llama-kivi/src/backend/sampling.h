// Sampling of a token from a row of logits; lk_sampling describes the rule.
#pragma once

#include <cstdint>
#include <span>

#include "llama_kivi.h"

namespace lk {

// Throws LK_INVALID_ARGUMENT, with the row and the field, if a parameter is out of range.
void check_samplings(std::span<const lk_sampling> samplings, int n_vocab);

// Samples a token; the penalties change the logits. The CUDA backend implements the same rule. The managed pipelines do
// too, with the same arithmetic, so that a token does not depend on where it is sampled: sums are doubles in the order
// of the tokens. Tokens with a logit of -infinity are never sampled. Throws LK_NUMERIC_ERROR if a logit is NaN or
// +infinity, or all are -infinity.
int32_t sample_row(float* logits, int n_vocab, const lk_sampling& sampling);

}  // namespace lk
