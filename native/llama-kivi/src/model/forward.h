// One forward pass over a batch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/memory.h"
#include "kv/cache.h"
#include "kv/rotation.h"
#include "llama_kivi.h"
#include "model/config.h"
#include "model/model.h"

namespace lk {

// The receiver of a pass's queries, keys and values.
struct Observer {
    lk_observer call = nullptr;  // null: none
    void* user_data = nullptr;
};

// Tokens of one pass, grouped by sequence.
struct ForwardBatch {
    std::span<const int32_t> tokens;        // [n]
    const float* inputs;                    // [n, n_embd] input of the first layer; null: the embeddings of tokens
    std::span<const kv::Segment> segments;  // cover the n rows in order
    std::span<const int32_t> output_rows;   // rows with an output, ascending
    float* logits;                          // [output_rows.size(), n_vocab], on a device only kept rows; null: none
    float* embeddings;                      // [output_rows.size(), n_embd] after the output norm; null: not computed
    const std::atomic<bool>* cancelled;     // checked between layers; throws LK_CANCELLED
    Observer observer;
    std::span<const lk_sampling> samplings;  // [output_rows.size()]; empty: no sampling
    int32_t* sampled;                        // [output_rows.size()] tokens; -1: not sampled
};

// Activations of one pass of up to n_max tokens, in the backend's memory.
struct ForwardScratch {
    ForwardScratch(const ModelConfig& config, int n_max, Memory& memory);
    static uint64_t bytes(const ModelConfig& config, int n_max);

    Buffer<float> x;            // [n, n_embd] the residual stream
    Buffer<float> h;            // [n, n_embd] output rows after the output norm
    Buffer<float> q;            // [n, n_head, D]
    Buffer<float> k;            // [n, n_head_kv, D]
    Buffer<float> v;            // [n, n_head_kv, D]
    Buffer<float> attn;         // [n, n_head, D]
    Buffer<float> gate;         // [n, n_ff], llama
    Buffer<float> up;           // [n, n_ff]
    Buffer<float> cos_sin;      // [n, n_rot/2, 2]
    Buffer<float> outputs;      // logits or embeddings to copy to the host; device only, grows
    std::vector<float> angles;  // host copy of cos_sin; device only
};

// Consecutive layers on one backend.
struct ModelPart {
    int begin;  // layers [begin, end)
    int end;
    std::unique_ptr<Backend> backend;
    kv::Cache* cache;  // of these layers
    ForwardScratch scratch;
    std::unique_ptr<Pass> pass = nullptr;  // of the running call; between calls only its memory is of use
};

// Stages every layer's keys and values in the parts' caches and writes the outputs. Does not commit the caches.
// The parts cover all layers in order; only the last may be on a device. Begins a pass in each part, which stage_pages
// and commit need.
void forward(const Model& model, std::span<ModelPart> parts, const ForwardBatch& batch);

// The rotation (RoPE) of a model's queries and keys.
kv::Rotation rotation(const Model& model);

// Rotates scratch.q and .k, stages .k and .v, and writes attention's output to scratch.attn. layer: index in the model.
void attend(const Model& model, ModelPart& part, const ForwardBatch& batch, int layer);

}  // namespace lk
