#include "model/forward.h"

#include <cmath>

#include "base/error.h"

namespace lk {

namespace {

// Elements of the widest feed-forward activations: gate and up, or up alone.
int ffn_width(const ModelConfig& c) {
    return c.architecture == Architecture::llama ? 2 * c.n_ff : c.n_ff;
}

void normalize(const Model& model, Backend& backend, const Norm& norm, const float* x, float* out) {
    const ModelConfig& c = model.config;
    if (norm.bias.empty()) {
        backend.rms_norm(x, norm.weight.data(), c.norm_eps, 1, c.n_embd, out);
    } else {
        backend.layer_norm(x, norm.weight.data(), norm.bias.data(), c.norm_eps, 1, c.n_embd, out);
    }
}

}  // namespace

ForwardScratch::ForwardScratch(const ModelConfig& c, int n_max) {
    const size_t n = n_max;
    x.resize(n * c.n_embd);
    h.resize(n * c.n_embd);
    q.resize(n * c.n_head * c.head_size);
    k.resize(n * c.n_head_kv * c.head_size);
    v.resize(n * c.n_head_kv * c.head_size);
    attn.resize(n * c.n_head * c.head_size);
    gate.resize(n * (ffn_width(c) - c.n_ff));
    up.resize(n * c.n_ff);
    cos_sin.resize(n * c.rope.n_rot);
}

uint64_t ForwardScratch::bytes(const ModelConfig& c, int n_max) {
    const uint64_t per_token = 2ull * c.n_embd + 2ull * c.n_head * c.head_size + 2ull * c.n_head_kv * c.head_size +
                               ffn_width(c) + c.rope.n_rot;
    return per_token * n_max * sizeof(float);
}

kv::Rotation rotation(const Model& model) {
    return {model.rope.frequency,
            model.config.architecture == Architecture::falcon ? RopePairs::halves : RopePairs::adjacent};
}

void check_cancelled(const ForwardBatch& batch) {
    LK_CHECK(!batch.cancelled->load(std::memory_order_relaxed), LK_CANCELLED, "the call was cancelled");
}

void attend(const Model& model, Backend& backend, kv::Cache& cache, const ForwardBatch& batch, int layer,
            ForwardScratch& s) {
    const ModelConfig& c = model.config;
    const kv::Rotation turn = rotation(model);
    const int n = static_cast<int>(batch.tokens.size());
    backend.rope(s.q.data(), s.cos_sin.data(), n, c.n_head, c.head_size, c.rope.n_rot, turn.pairs);
    backend.rope(s.k.data(), s.cos_sin.data(), n, c.n_head_kv, c.head_size, c.rope.n_rot, turn.pairs);
    backend.stage(cache, layer, n, s.k.data(), s.v.data());
    backend.attention({&cache, batch.segments, s.q.data(), s.attn.data(), layer, c.n_head,
                       1.0f / std::sqrt(static_cast<float>(c.head_size)), turn, c.window});
}

void forward(const Model& model, Backend& backend, kv::Cache& cache, const ForwardBatch& batch, ForwardScratch& s) {
    const ModelConfig& c = model.config;
    rope_angles(model.rope, cache, batch.segments, s.cos_sin.data());
    backend.embed(model.token_embd, batch.tokens.data(), static_cast<int>(batch.tokens.size()), s.x.data());
    switch (c.architecture) {
    case Architecture::llama:
        llama_layers(model, backend, cache, batch, s);
        break;
    case Architecture::falcon:
        falcon_layers(model, backend, cache, batch, s);
        break;
    }

    if (batch.output_rows.empty()) {
        return;
    }
    const int n_out = static_cast<int>(batch.output_rows.size());
    float* const normal = batch.embeddings != nullptr ? batch.embeddings : s.h.data();
    for (int i = 0; i < n_out; ++i) {
        normalize(model, backend, model.output_norm,
                  s.x.data() + static_cast<ptrdiff_t>(batch.output_rows[i]) * c.n_embd,
                  normal + static_cast<ptrdiff_t>(i) * c.n_embd);
    }
    if (batch.logits != nullptr) {
        const Product output[] = {{&model.output, batch.logits}};
        backend.matmul(normal, n_out, output);
    }
}

}  // namespace lk
