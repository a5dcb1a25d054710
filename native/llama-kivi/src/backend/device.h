// Compute devices: plugins beside the library, loaded on first use.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lk {

// A device that holds weights of a model. A model's contexts share the device; each has its own backend.
class Device {
public:
    virtual ~Device() = default;

    virtual Memory& memory() = 0;
    // batch_invariant: see lk_context_params.
    virtual std::unique_ptr<Backend> make_backend(bool batch_invariant) = 0;
    // Throws LK_UNSUPPORTED if batch-invariant backends do not compute with this cache.
    virtual void check_invariant(kv::Cache& cache) const = 0;
    // Copies weights or norms to the device. Operations find the copy by its host address. Does nothing if it exists.
    virtual void upload(const void* host, size_t bytes) = 0;
};

// The data of a model that a device needs.
struct DeviceWeights {
    std::vector<std::span<const uint8_t>> data;  // weights and norms on the host, for Device::upload
    std::span<const float> rope_frequency;       // [n_rot / 2], also in data
};

// Copies weights to the first usable device. progress: called with 0..1; return false to stop (LK_CANCELLED). May be
// empty. Throws LK_DEVICE_ERROR with the reason if no device is usable, or LK_OUT_OF_DEVICE_MEMORY.
std::shared_ptr<Device> open_device(const DeviceWeights& weights, const std::function<bool(float)>& progress);

// Describes device `index`. Throws LK_DEVICE_ERROR with the reason if it does not exist.
lk_device_info describe_device(uint32_t index);

}  // namespace lk
