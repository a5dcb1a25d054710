// The llama architecture: RMSNorm, grouped-query attention with rotary positions on adjacent pairs, SwiGLU.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/forward.h"

namespace lk {

ForwardScratch::ForwardScratch(const ModelConfig& c, int n_max) {
    const size_t n = n_max;
    x.resize(n * c.n_embd);
    h.resize(n * c.n_embd);
    q.resize(n * c.n_head * c.head_size);
    k.resize(n * c.n_head_kv * c.head_size);
    v.resize(n * c.n_head_kv * c.head_size);
    attn.resize(n * c.n_head * c.head_size);
    gate.resize(n * c.n_ff);
    up.resize(n * c.n_ff);
    cos_sin.resize(n * c.n_rot);
}

uint64_t ForwardScratch::bytes(const ModelConfig& c, int n_max) {
    const uint64_t per_token =
        2ull * c.n_embd + 2ull * c.n_head * c.head_size + 2ull * c.n_head_kv * c.head_size + 2ull * c.n_ff + c.n_rot;
    return per_token * n_max * sizeof(float);
}

namespace {

// Angles are taken in double: at position 100,000 a float has lost three digits of the fraction of a turn.
void rope_angles(const Model& model, const kv::Cache& cache, std::span<const kv::Segment> segments, float* cos_sin) {
    for (const kv::Segment& s : segments) {
        for (int i = 0; i < s.n_rows; ++i) {
            const double position = cache.length(s.seq) + i;
            float* row = cos_sin + static_cast<ptrdiff_t>(s.row + i) * model.config.n_rot;
            for (size_t j = 0; j < model.rope_freqs.size(); ++j) {
                const double angle = position * model.rope_freqs[j];
                row[2 * j] = static_cast<float>(std::cos(angle));
                row[2 * j + 1] = static_cast<float>(std::sin(angle));
            }
        }
    }
}

}  // namespace

void llama_forward(const Model& model, Backend& backend, kv::Cache& cache, const ForwardBatch& batch,
                   ForwardScratch& s) {
    const ModelConfig& c = model.config;
    const int n = static_cast<int>(batch.tokens.size());
    const int64_t n_x = static_cast<int64_t>(n) * c.n_embd;

    rope_angles(model, cache, batch.segments, s.cos_sin.data());
    backend.embed(model.token_embd, batch.tokens.data(), n, s.x.data());

    for (int il = 0; il < c.n_layer; ++il) {
        LK_CHECK(!batch.cancelled->load(std::memory_order_relaxed), LK_CANCELLED, "the call was cancelled");
        const LlamaLayer& layer = model.layers[il];

        backend.rms_norm(s.x.data(), layer.attn_norm.data(), c.norm_eps, n, c.n_embd, s.h.data());
        const Product qkv[] = {{&layer.wq, s.q.data()}, {&layer.wk, s.k.data()}, {&layer.wv, s.v.data()}};
        backend.matmul(s.h.data(), n, qkv);
        backend.rope(s.q.data(), s.cos_sin.data(), n, c.n_head, c.head_size, c.n_rot, RopePairs::adjacent);
        backend.rope(s.k.data(), s.cos_sin.data(), n, c.n_head_kv, c.head_size, c.n_rot, RopePairs::adjacent);
        backend.stage(cache, il, n, s.k.data(), s.v.data());
        backend.attention({&cache, batch.segments, s.q.data(), s.attn.data(), il, c.n_head,
                           1.0f / std::sqrt(static_cast<float>(c.head_size)), c.window});
        const Product wo[] = {{&layer.wo, s.h.data()}};
        backend.matmul(s.attn.data(), n, wo);
        backend.add(s.x.data(), s.h.data(), n_x);

        backend.rms_norm(s.x.data(), layer.ffn_norm.data(), c.norm_eps, n, c.n_embd, s.h.data());
        const Product gate_up[] = {{&layer.gate, s.gate.data()}, {&layer.up, s.up.data()}};
        backend.matmul(s.h.data(), n, gate_up);
        backend.swiglu(s.gate.data(), s.up.data(), static_cast<int64_t>(n) * c.n_ff);
        const Product down[] = {{&layer.down, s.h.data()}};
        backend.matmul(s.gate.data(), n, down);
        backend.add(s.x.data(), s.h.data(), n_x);
    }

    if (batch.output_rows.empty()) {
        return;
    }
    const int n_out = static_cast<int>(batch.output_rows.size());
    for (int i = 0; i < n_out; ++i) {
        const float* row = s.x.data() + static_cast<ptrdiff_t>(batch.output_rows[i]) * c.n_embd;
        backend.rms_norm(row, model.output_norm.data(), c.norm_eps, 1, c.n_embd,
                         s.h.data() + static_cast<ptrdiff_t>(i) * c.n_embd);
    }
    const Product output[] = {{&model.output, batch.logits}};
    backend.matmul(s.h.data(), n_out, output);
}

}  // namespace lk
