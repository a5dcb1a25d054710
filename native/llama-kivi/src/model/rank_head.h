// The scores of a reranker.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lk {

class WeightLoader;

// What a reranker adds: scores of an embedding. Small, and always computed on the CPU.
struct RankHead {
    int n_scores = 0;               // 0: the model is no reranker
    std::vector<float> dense;       // [n_embd, n_embd], followed by tanh; may be empty
    std::vector<float> dense_bias;  // [n_embd]; may be empty
    std::vector<float> out;         // [n_scores, n_embd]
    std::vector<float> out_bias;    // [n_scores]; may be empty

    void score(std::span<const float> embedding, float* scores) const;  // [n_embd] to [n_scores]
};

// From cls.output, and cls before it; no scores if the file has none.
RankHead load_rank_head(WeightLoader& loader, int64_t n_embd);

}  // namespace lk
