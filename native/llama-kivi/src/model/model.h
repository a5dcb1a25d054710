// A loaded model: its file, its shape and its weights.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/device.h"
#include "gguf/reader.h"
#include "kv/state_key.h"
#include "model/config.h"

namespace lk {

// A normalization: RMS of llama, or with a bias of falcon.
struct Norm {
    std::vector<float> weight;  // [n_embd]
    std::vector<float> bias;    // [n_embd], falcon
};

struct Layer {
    Norm attn_norm;
    Norm attn_norm_2;  // falcon 40B: what attention reads, where attn_norm is what the MLP reads
    Tensor wq;         // [n_head * D, n_embd]
    Tensor wk;         // [n_head_kv * D, n_embd]
    Tensor wv;         // [n_head_kv * D, n_embd]
    Tensor wo;         // [n_embd, n_head * D]
    Norm ffn_norm;     // llama
    Tensor gate;       // [n_ff, n_embd], llama
    Tensor up;         // [n_ff, n_embd]
    Tensor down;       // [n_embd, n_ff]
};

// What a reranker adds: scores of an embedding. Small, and always computed on the CPU.
struct RankHead {
    int n_scores = 0;               // 0: the model is no reranker
    std::vector<float> dense;       // [n_embd, n_embd], followed by tanh; may be empty
    std::vector<float> dense_bias;  // [n_embd]; may be empty
    std::vector<float> out;         // [n_scores, n_embd]
    std::vector<float> out_bias;    // [n_scores]; may be empty

    void score(std::span<const float> embedding, float* scores) const;  // [n_embd] to [n_scores]
};

struct Model {
    // progress: called with 0..1; returning false stops the load (LK_CANCELLED). May be empty.
    // n_gpu_layers, overrides: see lk_model_params.
    static std::shared_ptr<const Model> load(const std::string& path, bool use_mmap, int n_gpu_layers,
                                             const std::function<bool(float)>& progress,
                                             std::span<const lk_metadata_override> overrides = {});
    // The file and what its metadata says of the shape, without weights.
    static std::shared_ptr<const Model> load_vocabulary(const std::string& path,
                                                        std::span<const lk_metadata_override> overrides);
    void check_complete() const;  // LK_UNSUPPORTED if it was loaded without weights

    std::shared_ptr<const GgufFile> file;
    ModelConfig config;
    uint64_t n_params = 0;
    uint64_t weight_bytes = 0;
    kv::ModelKey state;       // what saved states depend on
    std::string weight_type;  // holding most bytes

    Tensor token_embd;  // [n_vocab, n_embd]
    std::vector<Layer> layers;
    Norm output_norm;
    Tensor output;  // [n_vocab, n_embd]; token_embd if the file has none
    RankHead rank;
    RopeTable rope;
    std::shared_ptr<Device> device;  // that computes the last layers and the outputs; null: the CPU computes all
    int n_device_layers = 0;         // whose weights it holds

    int n_host_layers() const { return config.n_layer - n_device_layers; }  // the first ones, which the CPU computes

private:
    static std::shared_ptr<const Model> load_whole(const std::string& path, bool use_mmap, int n_gpu_layers,
                                                   const std::function<bool(float)>& progress,
                                                   std::span<const lk_metadata_override> overrides);

    std::vector<std::unique_ptr<uint8_t[]>> copies_;  // of the weights, without mmap
    friend class WeightLoader;
};

// Bytes of all tensors of a file.
uint64_t total_weight_bytes(const GgufFile& file);

// The layer a tensor belongs to, from its name; -1 if to none.
int layer_of(std::string_view tensor);

// How many layers the device computes; n_gpu_layers: see lk_model_params.
constexpr int device_layers(int n_layer, int n_gpu_layers) {
    return n_gpu_layers < 0 || n_gpu_layers > n_layer ? n_layer : n_gpu_layers;
}

}  // namespace lk
