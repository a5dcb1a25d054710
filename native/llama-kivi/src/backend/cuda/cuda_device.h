// A CUDA device and a model's weights on it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/device/processors.h"
#include "backend/cuda/device/weight_map.h"
#include "backend/plugin.h"

namespace lk::cuda {

class CudaDevice {
public:
    // Opens the first GPU. Throws LK_DEVICE_ERROR with the reason if it is not usable, or LK_OUT_OF_DEVICE_MEMORY.
    CudaDevice(const lk_plugin_weights& weights, lk_plugin_progress progress, void* user_data);
    CudaDevice(const CudaDevice&) = delete;
    CudaDevice& operator=(const CudaDevice&) = delete;

    DeviceMemory& memory() { return memory_; }
    void upload(const void* host, size_t bytes) { weights_.upload(memory_, host, bytes); }

    const WeightMap& weights() const { return weights_; }
    const Processors& processors() const { return processors_; }
    int n_rot() const { return n_rot_; }
    const float* frequency() const { return weights_.floats(frequency_); }

private:
    DeviceMemory memory_;
    WeightMap weights_;
    const void* frequency_ = nullptr;
    int n_rot_ = 0;
    Processors processors_{};
};

// Describes GPU `index`. Throws LK_DEVICE_ERROR with the reason if it does not exist.
lk_device_info describe_device(uint32_t index);

}  // namespace lk::cuda
