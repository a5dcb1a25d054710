#include "model/placement.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/device.h"
#include "gguf/reader.h"
#include "model/layer.h"
#include "model/model.h"
#include "model/weight_loader.h"

namespace lk {

Placement Placement::make(int n_layer, int n_gpu_layers) {
    return {n_layer, n_gpu_layers < 0 || n_gpu_layers > n_layer ? n_layer : n_gpu_layers};
}

std::vector<LayerRange> Placement::ranges() const {
    std::vector<LayerRange> ranges;
    if (n_host_layers() > 0) {
        ranges.push_back({0, n_host_layers(), false});
    }
    if (uses_device()) {
        ranges.push_back({n_host_layers(), n_layer, true});
    }
    return ranges;
}

bool Placement::device_holds(std::string_view tensor, bool tied) const {
    if (const int layer = layer_of(tensor); layer >= 0) {
        return on_device(layer);
    }
    return tensor == kTokenEmbedding ? embeds_on_device() || (tied && outputs_on_device()) : outputs_on_device();
}

uint64_t device_weight_bytes(const GgufFile& file, const Placement& placement) {
    const bool tied = file.find_tensor(kOutput) == nullptr;
    uint64_t bytes = 0;
    for (const TensorInfo& t : file.tensors()) {
        bytes += placement.device_holds(t.name, tied) ? t.size : 0;
    }
    return bytes;
}

DeviceWeights device_weights(const Model& model) {
    DeviceWeights weights;
    const auto vector = [&](const std::vector<float>& v) {
        weights.data.emplace_back(reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof(float));
    };
    const auto norm = [&](const Norm& n) {
        vector(n.weight);
        vector(n.bias);
    };
    const auto matrix = [&](const Tensor& t) { weights.data.emplace_back(t.data, t.row_bytes * t.n_rows); };
    const Placement& placement = model.placement;
    if (placement.embeds_on_device()) {
        matrix(model.token_embd);
    }
    if (placement.outputs_on_device()) {
        matrix(model.output);
        norm(model.output_norm);
    }
    vector(model.rope.frequency);
    weights.rope_frequency = model.rope.frequency;
    for (int i = placement.n_host_layers(); i < placement.n_layer; ++i) {
        const Layer& layer = model.layers[i];
        for (const Norm* n : {&layer.attn_norm, &layer.attn_norm_2, &layer.ffn_norm}) {
            norm(*n);
        }
        for (const Tensor* t : {&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.gate, &layer.up, &layer.down}) {
            matrix(*t);
        }
    }
    return weights;
}

}  // namespace lk
