// Weights of a layer.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace lk {

// A norm: RMSNorm (llama), or LayerNorm with bias (falcon).
struct Norm {
    std::vector<float> weight;  // [n_embd]
    std::vector<float> bias;    // [n_embd], falcon
};

struct Layer {
    Norm attn_norm;
    Norm attn_norm_2;  // falcon 40B: norm of attention's input; attn_norm is then the MLP's
    Tensor wq;         // [n_head * D, n_embd]
    Tensor wk;         // [n_head_kv * D, n_embd]
    Tensor wv;         // [n_head_kv * D, n_embd]
    Tensor wo;         // [n_embd, n_head * D]
    Norm ffn_norm;     // llama
    Tensor gate;       // [n_ff, n_embd], llama
    Tensor up;         // [n_ff, n_embd]
    Tensor down;       // [n_embd, n_ff]
};

}  // namespace lk
