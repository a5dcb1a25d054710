// A CUDA device: its memory, its errors and a model's weights on it.
#pragma once

#include <cuda_runtime_api.h>

#include <unordered_map>
#include <vector>

#include "backend/cuda/plan/matmul_plan.h"
#include "backend/device.h"
#include "base/error.h"

namespace lk::cuda {

// Throws LK_DEVICE_ERROR unless status is cudaSuccess.
void check(cudaError_t status, const char* call);
#define LK_CUDA(call) ::lk::cuda::check((call), #call)

class DeviceMemory final : public Memory {
public:
    bool on_host() const override { return false; }
    void* allocate(size_t bytes) override;
    void free(void* data, size_t bytes) noexcept override;
    void copy(void* to, const void* from, size_t bytes) override;
    void read(void* to, const void* from, size_t bytes) override;
    void write(void* to, const void* from, size_t bytes) override;
    Memory& nearest_host() override;
};

// Pinned host memory for asynchronous copies to the device; grows.
class PinnedBuffer {
public:
    PinnedBuffer() = default;
    PinnedBuffer(const PinnedBuffer&) = delete;
    PinnedBuffer& operator=(const PinnedBuffer&) = delete;
    ~PinnedBuffer();
    uint8_t* reserve(size_t bytes);
    const uint8_t* data() const { return data_; }

private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

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
