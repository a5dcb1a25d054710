#include "model/rank_head.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "base/error.h"
#include "gguf/reader.h"
#include "llama_kivi.h"
#include "model/weight_loader.h"

namespace lk {

RankHead load_rank_head(WeightLoader& loader, int64_t n_embd) {
    RankHead head;
    const TensorInfo* out = loader.file().find_tensor("cls.output.weight");
    if (out == nullptr) {
        return head;
    }
    constexpr uint64_t kMostScores = 1u << 16;
    LK_CHECK(out->shape[1] >= 1 && out->shape[1] <= kMostScores, LK_BAD_FILE,
             "%s: tensor 'cls.output.weight' has %llu rows; it must have 1 to %llu", loader.file().name().c_str(),
             static_cast<unsigned long long>(out->shape[1]), static_cast<unsigned long long>(kMostScores));
    head.n_scores = static_cast<int>(out->shape[1]);
    head.out = loader.floats("cls.output.weight", head.n_scores, n_embd);
    if (loader.has("cls.output.bias")) {
        head.out_bias = loader.vector("cls.output.bias", head.n_scores);
    }
    if (loader.has("cls.weight")) {
        head.dense = loader.floats("cls.weight", n_embd, n_embd);
        if (loader.has("cls.bias")) {
            head.dense_bias = loader.vector("cls.bias", n_embd);
        }
    }
    return head;
}

namespace {

// out[n_rows] = w[n_rows, x.size()] x + bias.
void multiply(std::span<const float> x, const std::vector<float>& w, const std::vector<float>& bias, float* out) {
    for (size_t i = 0; i * x.size() < w.size(); ++i) {
        out[i] = std::inner_product(x.begin(), x.end(), w.begin() + static_cast<ptrdiff_t>(i * x.size()),
                                    bias.empty() ? 0.0f : bias[i]);
    }
}

}  // namespace

void RankHead::score(std::span<const float> embedding, float* scores) const {
    if (dense.empty()) {
        multiply(embedding, out, out_bias, scores);
        return;
    }
    std::vector<float> hidden(embedding.size());
    multiply(embedding, dense, dense_bias, hidden.data());
    for (float& x : hidden) {
        x = std::tanh(x);
    }
    multiply(hidden, out, out_bias, scores);
}

}  // namespace lk
