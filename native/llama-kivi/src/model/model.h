// A loaded model: its file, its shape and its weights.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "kv/state_key.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/placement.h"
#include "model/rank_head.h"

namespace lk {

class WeightSource;

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
    std::shared_ptr<WeightSource> weights;  // what the tensors point into
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
    Placement placement;
    std::shared_ptr<Device> device;  // of the placement; null: the CPU computes all

private:
    static std::shared_ptr<const Model> load_whole(const std::string& path, bool use_mmap, int n_gpu_layers,
                                                   const std::function<bool(float)>& progress,
                                                   std::span<const lk_metadata_override> overrides);
};

}  // namespace lk
