// Device memory, pinned host memory and the check of CUDA calls.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "base/memory.h"

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
    void zero(void* data, size_t bytes) override;
    void read(void* to, const void* from, size_t bytes) override;
    void write(void* to, const void* from, size_t bytes) override;
    Memory& nearest_host() override;
    bool pools_buffers() const override { return true; }  // the driver's pool
};

// Grows a buffer and discards its content. Its release is ordered after queued work that uses it.
template <class T>
void grow(Buffer<T>& buffer, Memory& memory, size_t size) {
    if (buffer.size() < size) {
        buffer = Buffer<T>(memory, size + size / 2);
    }
}

// Pinned host memory for asynchronous copies to the device; grows.
class PinnedBuffer {
public:
    PinnedBuffer() = default;
    PinnedBuffer(const PinnedBuffer&) = delete;
    PinnedBuffer& operator=(const PinnedBuffer&) = delete;
    ~PinnedBuffer();
    uint8_t* reserve(size_t bytes);
    uint8_t* data() { return data_; }

private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace lk::cuda
