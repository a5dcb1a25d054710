// Drawing a token from a row of logits: which tokens stay, and which one a number between 0 and 1 means.
#pragma once

#include <cstdint>

#include "llama_kivi.h"

namespace lk {

// LK_INVALID_ARGUMENT unless the numbers are in their ranges.
void check_sampling(const lk_sampling& sampling);

// The number in [0, 1) for the token behind position `position` of a sequence.
double uniform_draw(uint64_t seed, int32_t seq, uint32_t position);

// The token that `draw` means. Tokens stay if they are among the top_k most probable, then among the fewest of these
// that have top_p of their probability, and have min_p of the most probable one's; ties at a border stay. Of those that
// stay, in the order of their numbers, at the temperature, the one in whose part `draw` falls. The CUDA backend does
// the same. A logit of -infinity rules its token out. LK_NUMERIC_ERROR if one is NaN or +infinity, or all are
// -infinity.
int32_t sample_row(const float* logits, int n_vocab, const lk_sampling& sampling, double draw);

}  // namespace lk
