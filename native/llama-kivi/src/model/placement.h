// Which layers are computed on which device. The one place for this decision; the loader, contexts, caches and the
// memory estimate read it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "backend/device.h"
#include "gguf/reader.h"

namespace lk {

struct Model;

// Consecutive layers computed on one device.
struct LayerRange {
    int begin;  // layers [begin, end)
    int end;
    bool on_device;

    int n_layer() const { return end - begin; }
};

// The CPU computes the first layers; the device, if any, computes the last layers and the outputs.
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
    // Non-empty ranges that cover all layers in order.
    std::vector<LayerRange> ranges() const;
    // Whether the device holds a tensor. tied: the token embedding is also the output matrix.
    bool device_holds(std::string_view tensor, bool tied) const;
};

// Bytes of a file's tensors that the device holds.
uint64_t device_weight_bytes(const GgufFile& file, const Placement& placement);

// Host addresses of the weights and norms that the device will hold.
DeviceWeights device_weights(const Model& model);

}  // namespace lk
