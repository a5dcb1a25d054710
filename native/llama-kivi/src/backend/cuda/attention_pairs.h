// The pairs of stores that attention is compiled for, a few to a file.
#pragma once

#include "backend/cuda/launch.h"

namespace lk::cuda {

void attention_exact_exact(const AttentionWork& a, cudaStream_t stream);
void attention_exact_codes2(const AttentionWork& a, cudaStream_t stream);
void attention_exact_codes4(const AttentionWork& a, cudaStream_t stream);
void attention_codes2_exact(const AttentionWork& a, cudaStream_t stream);
void attention_codes2_codes2(const AttentionWork& a, cudaStream_t stream);
void attention_codes2_codes4(const AttentionWork& a, cudaStream_t stream);
void attention_codes4_exact(const AttentionWork& a, cudaStream_t stream);
void attention_codes4_codes2(const AttentionWork& a, cudaStream_t stream);
void attention_codes4_codes4(const AttentionWork& a, cudaStream_t stream);
void attention_blocks8_blocks8(const AttentionWork& a, cudaStream_t stream);
void attention_blocks4_blocks4(const AttentionWork& a, cudaStream_t stream);

// The pages of every segment, in a.n_page_splits splits.
void attention_pages(const AttentionWork& a, cudaStream_t stream);
// The same for several rows of kivi2.
void attention_pages_mma(const AttentionWork& a, cudaStream_t stream);
// The other tokens, where those of every segment are in full precision.
void attention_rows(const AttentionWork& a, cudaStream_t stream);

}  // namespace lk::cuda
