// One forward pass over a few tokens.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/model.h"

namespace lk {

// Who is shown a pass's queries, keys and values.
struct Observer {
    lk_observer call = nullptr;  // null: nobody is
    void* user_data = nullptr;
};

// Tokens of one pass, grouped by sequence.
struct ForwardBatch {
    std::span<const int32_t> tokens;        // [n]
    const float* inputs;                    // [n, n_embd] instead of the tokens' embeddings; null: theirs
    std::span<const kv::Segment> segments;  // cover the n rows in order
    std::span<const int32_t> output_rows;   // rows whose outputs are wanted, ascending
    float* logits;                          // [output_rows.size(), n_vocab]; null: not wanted
    float* embeddings;                      // [output_rows.size(), n_embd] after the output norm; null: not wanted
    const std::atomic<bool>* cancelled;     // looked at between layers: LK_CANCELLED
    Observer observer;
    const lk_sampling* sampling;  // of the logits, which then are no output where they stay on a device; null: none
    const double* draws;          // [output_rows.size()] in [0, 1)
    int32_t* sampled;             // [output_rows.size()] tokens
};

// Activations of one pass, for up to n_max tokens, in the backend's memory.
struct ForwardScratch {
    ForwardScratch(const ModelConfig& config, int n_max, Memory& memory);
    static uint64_t bytes(const ModelConfig& config, int n_max);

    Buffer<float> x;            // [n, n_embd] the residual stream
    Buffer<float> h;            // [n, n_embd] rows for the outputs, normalized
    Buffer<float> q;            // [n, n_head, D]
    Buffer<float> k;            // [n, n_head_kv, D]
    Buffer<float> v;            // [n, n_head_kv, D]
    Buffer<float> attn;         // [n, n_head, D]
    Buffer<float> gate;         // [n, n_ff], llama
    Buffer<float> up;           // [n, n_ff]
    Buffer<float> cos_sin;      // [n, n_rot/2, 2]
    Buffer<float> outputs;      // what goes to the host, where the memory is not the host's; grows
    std::vector<float> angles;  // cos_sin on its way to a device
};

// Consecutive layers that one backend computes.
struct ModelPart {
    int begin;  // layers [begin, end)
    int end;
    std::unique_ptr<Backend> backend;
    kv::Cache* cache;  // of these layers
    ForwardScratch scratch;
};

// Stages the keys and values of every layer in the parts' caches and writes the outputs. The caches are not committed.
// The parts have all layers in order; all but the last lie on the host.
void forward(const Model& model, std::span<ModelPart> parts, const ForwardBatch& batch);

// How a model rotates queries and keys.
kv::Rotation rotation(const Model& model);

// Rotates scratch.q and .k, stages .k and .v, and attends: scratch.attn. layer: of the model.
void attend(const Model& model, ModelPart& part, const ForwardBatch& batch, int layer);

}  // namespace lk
