// The falcon architecture: attention and MLP side by side, x + attn(norm(x)) + mlp(norm(x)); LayerNorm, rotary
// positions on halves, GELU. The 7B form has one norm for both, the 40B form one each.
#include "model/forward.h"

namespace lk {

void falcon_layers(const Model& model, ModelPart& part, const ForwardBatch& batch) {
    const ModelConfig& c = model.config;
    Backend& backend = *part.backend;
    ForwardScratch& s = part.scratch;
    const int n = static_cast<int>(batch.tokens.size());
    const auto normal = [&](const Norm& norm) {
        return Rows::layer_norm(s.x.data(), norm.weight.data(), norm.bias.data(), c.norm_eps);
    };

    for (int il = part.begin; il < part.end; ++il) {
        check_cancelled(batch);
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
}

}  // namespace lk
