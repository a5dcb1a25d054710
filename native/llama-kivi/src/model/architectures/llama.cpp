// The llama architecture: RMSNorm, grouped-query attention, RoPE on adjacent pairs, SwiGLU.
#include <cstdint>
#include <string>

#include "backend/backend.h"
#include "backend/rows.h"
#include "kv/rotation.h"
#include "model/architecture.h"
#include "model/architectures/registry.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/layer.h"
#include "model/metadata_keys.h"
#include "model/model.h"
#include "model/weight_loader.h"

namespace lk {

namespace {

void read_config(const MetadataKeys&, ModelConfig& config) {
    config.norm = NormType::rms;
    config.gated_ffn = true;
}

Layer load_layer(WeightLoader& loader, const ModelConfig& c, const std::string& prefix) {
    const int64_t n_q = static_cast<int64_t>(c.n_head) * c.head_size;
    const int64_t n_kv = static_cast<int64_t>(c.n_head_kv) * c.head_size;
    Layer layer;
    layer.attn_norm = loader.norm(prefix + "attn_norm");
    layer.wq = loader.matrix(prefix + "attn_q.weight", n_q, c.n_embd);
    layer.wk = loader.matrix(prefix + "attn_k.weight", n_kv, c.n_embd);
    layer.wv = loader.matrix(prefix + "attn_v.weight", n_kv, c.n_embd);
    layer.wo = loader.matrix(prefix + "attn_output.weight", c.n_embd, n_q);
    layer.ffn_norm = loader.norm(prefix + "ffn_norm");
    layer.gate = loader.matrix(prefix + "ffn_gate.weight", c.n_ff, c.n_embd);
    layer.up = loader.matrix(prefix + "ffn_up.weight", c.n_ff, c.n_embd);
    layer.down = loader.matrix(prefix + "ffn_down.weight", c.n_embd, c.n_ff);
    return layer;
}

void forward_layer(const Model& model, ModelPart& part, const ForwardBatch& batch, int il) {
    const ModelConfig& c = model.config;
    Backend& backend = *part.backend;
    ForwardScratch& s = part.scratch;
    const int n = static_cast<int>(batch.tokens.size());
    const Layer& layer = model.layers[il];

    const Product qkv[] = {{&layer.wq, s.q.data()}, {&layer.wk, s.k.data()}, {&layer.wv, s.v.data()}};
    backend.matmul(Rows::rms_norm(s.x.data(), layer.attn_norm.weight.data(), c.norm_eps), n, qkv);
    attend(model, part, batch, il);
    const Product wo[] = {{&layer.wo, s.x.data(), true}};
    backend.matmul(Rows::plain(s.attn.data()), n, wo);

    const Product gate_up[] = {{&layer.gate, s.gate.data()}, {&layer.up, s.up.data()}};
    backend.matmul(Rows::rms_norm(s.x.data(), layer.ffn_norm.weight.data(), c.norm_eps), n, gate_up);
    const Product down[] = {{&layer.down, s.x.data(), true}};
    backend.matmul(Rows::swiglu(s.gate.data(), s.up.data()), n, down);
}

}  // namespace

const Architecture llama_architecture{
    "llama", "attention.layer_norm_rms_epsilon", RopePairs::adjacent, read_config, load_layer, forward_layer};

}  // namespace lk
