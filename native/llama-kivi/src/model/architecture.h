// The interface of an architecture. To add one, add a file to architectures/ and a line to architectures/registry.h.
#pragma once

#include <span>
#include <string>

#include "gguf/reader.h"
#include "kv/rotation.h"
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
    const char* norm_eps_key;  // metadata key of the norms' epsilon, without the prefix
    RopePairs rope_pairs;      // which two elements of a head form a rotated pair
    // Sets the architecture's own fields (see ModelConfig). The keys that ModelConfig::read reads before it are set.
    void (*read_config)(const MetadataKeys& keys, ModelConfig& config);
    // prefix: start of the layer's tensor names, "blk.3.".
    Layer (*load_layer)(WeightLoader& loader, const ModelConfig& config, const std::string& prefix);
    // Updates the residual stream part.scratch.x[n, n_embd] in place. layer: index in the model.
    void (*forward_layer)(const Model& model, ModelPart& part, const ForwardBatch& batch, int layer);
};

// All architectures, in the order of messages.
std::span<const Architecture* const> architectures();

// Throws LK_UNSUPPORTED, listing the supported names, if there is no architecture of this name.
const Architecture& find_architecture(const GgufFile& file, const std::string& name);

}  // namespace lk
