#include "model/forward.h"

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/rows.h"
#include "base/error.h"
#include "base/memory.h"
#include "kv/cache.h"
#include "kv/rotation.h"
#include "llama_kivi.h"
#include "model/architecture.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/rope.h"

namespace lk {

namespace {

// Feed-forward activations per token: gate and up, or only up.
int ffn_width(const ModelConfig& c) {
    return c.gated_ffn ? 2 * c.n_ff : c.n_ff;
}

}  // namespace

ForwardScratch::ForwardScratch(const ModelConfig& c, int n_max, Memory& memory) {
    const size_t n = n_max;
    const auto floats = [&](size_t count) { return Buffer<float>(memory, count); };
    x = floats(n * c.n_embd);
    h = floats(n * c.n_embd);
    q = floats(n * c.n_head * c.head_size);
    k = floats(n * c.n_head_kv * c.head_size);
    v = floats(n * c.n_head_kv * c.head_size);
    attn = floats(n * c.n_head * c.head_size);
    gate = floats(n * (ffn_width(c) - c.n_ff));
    up = floats(n * c.n_ff);
    cos_sin = floats(n * c.rope.n_rot);
    angles.resize(memory.on_host() ? 0 : cos_sin.size());
}

uint64_t ForwardScratch::bytes(const ModelConfig& c, int n_max) {
    const uint64_t per_token = 2ull * c.n_embd + 2ull * c.n_head * c.head_size + 2ull * c.n_head_kv * c.head_size +
                               ffn_width(c) + c.rope.n_rot;
    return per_token * n_max * sizeof(float);
}

kv::Rotation rotation(const Model& model) {
    return {model.rope.frequency, model.config.architecture->rope_pairs};
}

void check_cancelled(const ForwardBatch& batch) {
    LK_CHECK(!batch.cancelled->load(std::memory_order_relaxed), LK_CANCELLED, "the call was cancelled");
}

namespace {

// Passes the layer's queries, keys and values to the observer.
void observe(const Model& model, const ModelPart& part, const ForwardBatch& batch, int layer) {
    const ModelConfig& c = model.config;
    const ForwardScratch& s = part.scratch;
    const size_t n = batch.tokens.size();
    std::vector<int32_t> seqs;
    std::vector<int32_t> positions;
    for (const kv::Segment& segment : batch.segments) {
        for (int i = 0; i < segment.n_rows; ++i) {
            seqs.push_back(segment.seq);
            positions.push_back(part.cache->length(segment.seq) + i);
        }
    }
    lk_observation seen{static_cast<uint32_t>(layer),
                        static_cast<uint32_t>(n),
                        seqs.data(),
                        positions.data(),
                        s.q.data(),
                        s.k.data(),
                        s.v.data()};
    std::vector<float> copies[3];
    Memory& memory = part.backend->memory();
    if (!memory.on_host()) {
        part.backend->finish();
        const auto copy = [&](std::vector<float>& to, const Buffer<float>& from, int n_head) {
            to.resize(n * n_head * c.head_size);
            memory.read(to.data(), from.data(), to.size() * sizeof(float));
            return to.data();
        };
        seen.q = copy(copies[0], s.q, c.n_head);
        seen.k = copy(copies[1], s.k, c.n_head_kv);
        seen.v = copy(copies[2], s.v, c.n_head_kv);
    }
    LK_CHECK(batch.observer.call(&seen, batch.observer.user_data) != 0, LK_CANCELLED, "the observer stopped the call");
}

}  // namespace

void attend(const Model& model, ModelPart& part, const ForwardBatch& batch, int layer) {
    const ModelConfig& c = model.config;
    ForwardScratch& s = part.scratch;
    const kv::Rotation turn = rotation(model);
    const int n = static_cast<int>(batch.tokens.size());
    part.backend->stage({.cache = part.cache,
                         .layer = layer - part.begin,
                         .n = n,
                         .n_head = c.n_head,
                         .n_rot = c.rope.n_rot,
                         .pairs = turn.pairs,
                         .cos_sin = s.cos_sin.data(),
                         .q = s.q.data(),
                         .k = s.k.data(),
                         .v = s.v.data(),
                         .pass = part.pass.get()});
    if (batch.observer.call != nullptr) {
        observe(model, part, batch, layer);
    }
    part.backend->stage_pages(*part.pass, {layer - part.begin, layer - part.begin + 1});
    part.backend->attention({part.cache, batch.segments, s.q.data(), s.attn.data(), layer - part.begin, c.n_head,
                             1.0f / std::sqrt(static_cast<float>(c.head_size)), turn, c.window, part.pass.get()});
}

namespace {

void write_angles(const Model& model, ModelPart& part, const ForwardBatch& batch) {
    ForwardScratch& s = part.scratch;
    Memory& memory = s.cos_sin.memory();
    if (memory.on_host()) {
        rope_angles(model.rope, *part.cache, batch.segments, s.cos_sin.data());
    } else {
        rope_angles(model.rope, *part.cache, batch.segments, s.angles.data());
        memory.write(s.cos_sin.data(), s.angles.data(), batch.tokens.size() * model.config.rope.n_rot * sizeof(float));
    }
}

// Writes the embeddings of the output rows to `normal`, [n_out, n_embd] in the backend's memory. Consecutive rows share
// one call.
void normalize_outputs(const Model& model, Backend& backend, std::span<const int32_t> rows, const float* x,
                       float* normal) {
    const int64_t n_embd = model.config.n_embd;
    const float eps = model.config.norm_eps;
    const Norm& norm = model.output_norm;
    for (size_t i = 0; i < rows.size();) {
        size_t n = 1;
        while (i + n < rows.size() && rows[i + n] == rows[i] + static_cast<int32_t>(n)) {
            ++n;
        }
        const float* const from = x + rows[i] * n_embd;
        backend.make(model.config.norm == NormType::rms
                         ? Rows::rms_norm(from, norm.weight.data(), eps)
                         : Rows::layer_norm(from, norm.weight.data(), norm.bias.data(), eps),
                     static_cast<int>(n), static_cast<int>(n_embd), normal + static_cast<int64_t>(i) * n_embd);
        i += n;
    }
}

// Copies the kept rows of a device's outputs, [n, width], to consecutive rows of host memory. samplings: [n]; empty:
// all rows are kept.
void read_outputs(Memory& memory, std::span<const lk_sampling> samplings, int n, size_t width, const float* out,
                  float* host) {
    const auto keeps = [&](int i) { return samplings.empty() || samplings[i].keep_logits != 0; };
    for (int i = 0; i < n;) {
        int end = i;
        while (end < n && keeps(end)) {
            ++end;
        }
        const size_t size = (end - i) * width;
        if (size > 0) {
            memory.read(host, out + i * width, size * sizeof(float));
        }
        host += size;
        i = end + 1;
    }
}

// Computes the logits, embeddings or samples of the last part's output rows.
void write_outputs(const Model& model, ModelPart& part, const ForwardBatch& batch) {
    const ModelConfig& c = model.config;
    Backend& backend = *part.backend;
    ForwardScratch& s = part.scratch;
    const int n_out = static_cast<int>(batch.output_rows.size());
    float* const host = batch.embeddings != nullptr ? batch.embeddings : batch.logits;
    const size_t size = static_cast<size_t>(n_out) * (batch.embeddings != nullptr ? c.n_embd : c.n_vocab);
    Memory& memory = backend.memory();
    if (!memory.on_host() && s.outputs.size() < size) {
        s.outputs = Buffer<float>(memory, size);
    }
    float* const out = memory.on_host() ? host : s.outputs.data();
    if (n_out > 0) {
        float* const normal = batch.embeddings != nullptr ? out : s.h.data();
        normalize_outputs(model, backend, batch.output_rows, s.x.data(), normal);
        if (batch.embeddings == nullptr) {
            const Product output[] = {{&model.output, out}};
            backend.matmul(Rows::plain(normal), n_out, output);
        }
    }
    if (!batch.samplings.empty()) {
        backend.sample(out, n_out, c.n_vocab, batch.samplings.data(), batch.sampled);
    }
    backend.finish();
    if (!memory.on_host() && n_out > 0) {
        read_outputs(memory, batch.samplings, n_out, size / n_out, out, host);
    }
}

}  // namespace

void forward(const Model& model, std::span<ModelPart> parts, const ForwardBatch& batch) {
    const ModelConfig& c = model.config;
    const int n = static_cast<int>(batch.tokens.size());
    const size_t stream_bytes = static_cast<size_t>(n) * c.n_embd * sizeof(float);
    const float* stream = batch.inputs;  // input of the next part, in host memory
    for (ModelPart& part : parts) {
        Backend& backend = *part.backend;
        float* const x = part.scratch.x.data();
        part.pass = backend.begin(*part.cache, batch.segments, std::move(part.pass));
        write_angles(model, part, batch);
        if (stream != nullptr) {
            backend.memory().write(x, stream, stream_bytes);
        } else {
            backend.embed(model.token_embd, batch.tokens.data(), n, x);
        }
        for (int layer = part.begin; layer < part.end; ++layer) {
            check_cancelled(batch);
            c.architecture->forward_layer(model, part, batch, layer);
        }
        stream = x;
    }
    write_outputs(model, parts.back(), batch);
}

}  // namespace lk
