// The falcon architecture: parallel attention and MLP, x + attn(norm(x)) + mlp(norm(x)); LayerNorm, RoPE on halves,
// GELU. In 7B, attention and MLP share a norm; in 40B, each has its own.
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
    config.norm = NormType::layer;
    config.gated_ffn = false;
}

Layer load_layer(WeightLoader& loader, const ModelConfig& c, const std::string& prefix) {
    const int64_t n_q = static_cast<int64_t>(c.n_head) * c.head_size;
    const int64_t n_kv = static_cast<int64_t>(c.n_head_kv) * c.head_size;
    Layer layer;
    layer.attn_norm = loader.norm(prefix + "attn_norm");
    if (loader.has(prefix + "attn_norm_2.weight")) {
        layer.attn_norm_2 = loader.norm(prefix + "attn_norm_2");
    }
    const Tensor qkv = loader.matrix(prefix + "attn_qkv.weight", n_q + 2 * n_kv, c.n_embd);
    layer.wq = WeightLoader::rows(qkv, 0, n_q, "attn_q");
    layer.wk = WeightLoader::rows(qkv, n_q, n_kv, "attn_k");
    layer.wv = WeightLoader::rows(qkv, n_q + n_kv, n_kv, "attn_v");
    layer.wo = loader.matrix(prefix + "attn_output.weight", c.n_embd, n_q);
    layer.up = loader.matrix(prefix + "ffn_up.weight", c.n_ff, c.n_embd);
    layer.down = loader.matrix(prefix + "ffn_down.weight", c.n_embd, c.n_ff);
    return layer;
}

void forward_layer(const Model& model, ModelPart& part, const ForwardBatch& batch, int il) {
    const ModelConfig& c = model.config;
    Backend& backend = *part.backend;
    ForwardScratch& s = part.scratch;
    const int n = static_cast<int>(batch.tokens.size());
    const auto normal = [&](const Norm& norm) {
        return Rows::layer_norm(s.x.data(), norm.weight.data(), norm.bias.data(), c.norm_eps);
    };
    const Layer& layer = model.layers[il];
    const Product qkv_up[] = {
        {&layer.wq, s.q.data()}, {&layer.wk, s.k.data()}, {&layer.wv, s.v.data()}, {&layer.up, s.up.data()}};

    if (layer.attn_norm_2.weight.empty()) {
        backend.matmul(normal(layer.attn_norm), n, qkv_up);
    } else {
        backend.matmul(normal(layer.attn_norm), n, std::span(qkv_up).last(1));
        backend.matmul(normal(layer.attn_norm_2), n, std::span(qkv_up).first(3));
    }

    attend(model, part, batch, il);
    const Product wo[] = {{&layer.wo, s.x.data(), true}};
    backend.matmul(Rows::plain(s.attn.data()), n, wo);

    const Product down[] = {{&layer.down, s.x.data(), true}};
    backend.matmul(Rows::gelu(s.up.data()), n, down);
}

}  // namespace

const Architecture falcon_architecture{
    "falcon", "attention.layer_norm_epsilon", RopePairs::halves, read_config, load_layer, forward_layer};

}  // namespace lk
