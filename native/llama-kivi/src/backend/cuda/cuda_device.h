// A CUDA device and a model's weights on it.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/device/processors.h"
#include "backend/cuda/device/weight_map.h"
#include "backend/cuda/plan/row_plan.h"
#include "backend/device.h"

namespace lk::cuda {

class CudaDevice final : public Device {
public:
    CudaDevice(const DeviceWeights& weights, const std::function<bool(float)>& progress);

    Memory& memory() override { return memory_; }
    std::unique_ptr<Backend> make_backend(bool batch_invariant) override;
    void check_invariant(const kv::Cache& cache) const override { cuda::check_invariant(cache); }
    void upload(const void* host, size_t bytes) override;

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

}  // namespace lk::cuda
