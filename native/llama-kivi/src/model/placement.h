// Which part of a model is computed where. Decided here alone: the loader, contexts, caches and the memory estimate
// read it.
#pragma once

#include <string_view>
#include <vector>

#include "backend/device.h"
#include "gguf/reader.h"

namespace lk {

struct Model;

// Consecutive layers that are computed in one place.
struct LayerRange {
    int begin;  // layers [begin, end)
    int end;
    bool on_device;

    int n_layer() const { return end - begin; }
};

// The CPU computes the first layers; a device, if there is one, the last ones and the outputs.
struct Placement {
    int n_layer = 0;
    int n_device_layers = 0;

    // n_gpu_layers: see lk_model_params.
    static Placement make(int n_layer, int n_gpu_layers);

    bool uses_device() const { return n_device_layers > 0; }
    int n_host_layers() const { return n_layer - n_device_layers; }
    bool on_device(int layer) const { return layer >= n_host_layers(); }
    bool embeds_on_device() const { return uses_device() && n_host_layers() == 0; }
    bool outputs_on_device() const { return uses_device(); }
    // All layers in order; no range is empty.
    std::vector<LayerRange> ranges() const;
    // Whether the device holds a tensor of a file. tied: the outputs are computed with the token embedding.
    bool device_holds(std::string_view tensor, bool tied) const;
};

// Bytes of a file's tensors that the device holds.
uint64_t device_weight_bytes(const GgufFile& file, const Placement& placement);

// The weights and norms of the model that the device holds, where they lie on the host.
DeviceWeights device_weights(const Model& model);

}  // namespace lk
