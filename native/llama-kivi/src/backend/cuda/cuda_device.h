// A CUDA device and a model's weights on it.
#pragma once

#include <unordered_map>
#include <vector>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/plan/matmul_plan.h"
#include "backend/device.h"

namespace lk::cuda {

class CudaDevice final : public Device {
public:
    CudaDevice(const DeviceWeights& weights, const std::function<bool(float)>& progress);

    Memory& memory() override { return memory_; }
    std::unique_ptr<Backend> make_backend() override;
    void upload(const void* host, size_t bytes) override;

    // Device address of weights at a host address.
    const uint8_t* weights(const void* host) const;
    const float* floats(const void* host) const { return reinterpret_cast<const float*>(weights(host)); }
    const Processors& processors() const { return processors_; }
    int n_rot() const { return n_rot_; }
    const float* frequency() const { return floats(frequency_); }

private:
    DeviceMemory memory_;
    std::unordered_map<const void*, Buffer<uint8_t>> weights_;
    const void* frequency_ = nullptr;
    int n_rot_ = 0;
    Processors processors_{};
};

}  // namespace lk::cuda
