// Devices that compute: plugins beside the library, loaded when asked for.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lk {

// A device with weights of a model. Contexts share it; each has a backend of its own.
class Device {
public:
    virtual ~Device() = default;

    virtual Memory& memory() = 0;
    virtual std::unique_ptr<Backend> make_backend() = 0;
    // Copies what operations will name by where it lies on the host: weights, norms. What is there already stays.
    virtual void upload(const void* host, size_t bytes) = 0;
};

// What a device needs of a model.
struct DeviceWeights {
    std::vector<std::span<const uint8_t>> data;  // weights and norms on the host, each copied as upload does
    std::span<const float> rope_frequency;       // [n_rot / 2], one of them
};

// Copies weights to the first usable device. progress: called with 0..1, returns false to stop (LK_CANCELLED); may be
// empty. Throws LK_DEVICE_ERROR with the reason if there is no device, or LK_OUT_OF_DEVICE_MEMORY.
std::shared_ptr<Device> open_device(const DeviceWeights& weights, const std::function<bool(float)>& progress);

// Describes a device; LK_DEVICE_ERROR with the reason if there is none of that number.
lk_device_info describe_device(uint32_t index);

// What a plugin exports as lk_device_plugin.
struct DevicePlugin {
    uint32_t abi_version;  // LK_ABI_VERSION
    Device* (*open)(const DeviceWeights& weights, const std::function<bool(float)>& progress);
    lk_device_info (*describe)(uint32_t index);
};

}  // namespace lk
