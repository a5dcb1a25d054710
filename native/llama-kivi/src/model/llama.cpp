// The llama architecture: RMSNorm, grouped-query attention with rotary positions on adjacent pairs, SwiGLU.
#include "model/forward.h"

namespace lk {

void llama_layers(const Model& model, ModelPart& part, const ForwardBatch& batch) {
    const ModelConfig& c = model.config;
    Backend& backend = *part.backend;
    ForwardScratch& s = part.scratch;
    const int n = static_cast<int>(batch.tokens.size());

    for (int il = part.begin; il < part.end; ++il) {
        check_cancelled(batch);
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
}

}  // namespace lk
