// Sampling of a token from a row of logits: filters the tokens and maps a draw in [0, 1) to one of them.
#pragma once

#include <cstdint>

#include "llama_kivi.h"

namespace lk {

// Throws LK_INVALID_ARGUMENT if a parameter is out of range.
void check_sampling(const lk_sampling& sampling);

// The draw in [0, 1) for the token after position `position` of a sequence; depends only on the arguments.
double uniform_draw(uint64_t seed, int32_t seq, uint32_t position);

// Samples a token. Keeps the top_k most probable tokens, of these the smallest set that holds top_p of their
// probability, and of these the tokens with at least min_p of the highest probability; ties at a limit are kept. Then
// inverts the cumulative distribution of the kept tokens, in token order and at the temperature, at `draw`. The CUDA
// backend implements the same rule. Tokens with a logit of -infinity are never sampled. Throws LK_NUMERIC_ERROR if a
// logit is NaN or +infinity, or all are -infinity.
int32_t sample_row(const float* logits, int n_vocab, const lk_sampling& sampling, double draw);

}  // namespace lk
