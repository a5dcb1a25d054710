// What an architecture is to the rest of the engine. Each is a file of architectures/ and a line of
// architectures/registry.h.
#pragma once

#include <span>
#include <string>

#include "kv/cache.h"
#include "model/config.h"
#include "model/layer.h"

namespace lk {

class MetadataKeys;
class WeightLoader;
struct ForwardBatch;
struct Model;
struct ModelPart;

struct Architecture {
    const char* name;          // general.architecture
    const char* norm_eps_key;  // metadata key of the norms' epsilon, without the architecture
    RopePairs rope_pairs;      // which elements of a head are rotated together
    // Sets what architectures differ in. The common keys before it in ModelConfig::read are set.
    void (*read_config)(const MetadataKeys& keys, ModelConfig& config);
    // prefix: of the layer's tensors, "blk.3.".
    Layer (*load_layer)(WeightLoader& loader, const ModelConfig& config, const std::string& prefix);
    // part.scratch.x[n, n_embd], the residual stream, in and out; layer: of the model.
    void (*forward_layer)(const Model& model, ModelPart& part, const ForwardBatch& batch, int layer);
};

// All of them, in the order that messages name them.
std::span<const Architecture* const> architectures();

// LK_UNSUPPORTED, with the names there are, if no architecture has this one.
const Architecture& find_architecture(const GgufFile& file, const std::string& name);

}  // namespace lk
