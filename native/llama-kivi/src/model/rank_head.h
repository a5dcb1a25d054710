// The head of a reranker.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lk {

class WeightLoader;

// Computes a reranker's scores from an embedding. Small, so always computed on the CPU.
struct RankHead {
    int n_scores = 0;               // 0: the model is not a reranker
    std::vector<float> dense;       // [n_embd, n_embd], followed by tanh; may be empty
    std::vector<float> dense_bias;  // [n_embd]; may be empty
    std::vector<float> out;         // [n_scores, n_embd]
    std::vector<float> out_bias;    // [n_scores]; may be empty

    // embedding: [n_embd]; scores: [n_scores].
    void score(std::span<const float> embedding, float* scores) const;
};

// Loads cls.output and the optional cls. n_scores is 0 if the file has no cls.output.
RankHead load_rank_head(WeightLoader& loader, int64_t n_embd);

}  // namespace lk
