// A loaded model: file, configuration and weights.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/device.h"
#include "gguf/reader.h"
#include "kv/state/state_key.h"
#include "llama_kivi.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/placement.h"
#include "model/rank_head.h"
#include "model/rope.h"

namespace lk {

class WeightSource;

struct Model {
    // progress: called with 0..1; return false to stop the load (LK_CANCELLED). May be empty.
    // n_gpu_layers, overrides: see lk_model_params.
    static std::shared_ptr<const Model> load(const std::string& path, bool use_mmap, int n_gpu_layers,
                                             const std::function<bool(float)>& progress,
                                             std::span<const lk_metadata_override> overrides = {});
    // Reads the metadata only, no weights.
    static std::shared_ptr<const Model> load_vocabulary(const std::string& path,
                                                        std::span<const lk_metadata_override> overrides);
    void check_complete() const;  // throws LK_UNSUPPORTED if the model has no weights

    std::shared_ptr<const GgufFile> file;
    std::shared_ptr<WeightSource> weights;  // owns the bytes of the tensors
    ModelConfig config;
    uint64_t n_params = 0;
    uint64_t weight_bytes = 0;
    kv::ModelKey state;       // identifies the model in saved states
    std::string weight_type;  // type with the most weight bytes

    Tensor token_embd;  // [n_vocab, n_embd]
    std::vector<Layer> layers;
    Norm output_norm;
    Tensor output;  // [n_vocab, n_embd]; token_embd if tied
    RankHead rank;
    RopeTable rope;
    Placement placement;
    std::shared_ptr<Device> device;  // null if all layers are on the CPU

private:
    static std::shared_ptr<const Model> load_whole(const std::string& path, bool use_mmap, int n_gpu_layers,
                                                   const std::function<bool(float)>& progress,
                                                   std::span<const lk_metadata_override> overrides);
};

}  // namespace lk
