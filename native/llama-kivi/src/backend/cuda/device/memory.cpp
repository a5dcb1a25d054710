#include "backend/cuda/device/memory.h"

#include <cstring>
#include <new>

#include "base/error.h"

namespace lk::cuda {

void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess) {
        cudaGetLastError();  // clear the error, or the next call would report it
        LK_FAIL(LK_DEVICE_ERROR, "the GPU's driver failed: %s (%s)", cudaGetErrorString(status), call);
    }
}

// The legacy stream is ordered with the streams of all backends.
void* DeviceMemory::allocate(size_t bytes) {
    void* data = nullptr;
    cudaError_t status = cudaMallocAsync(&data, bytes, nullptr);
    if (status == cudaSuccess) {
        status = cudaMemsetAsync(data, 0, bytes, nullptr);
    }
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        size_t free = 0;
        size_t total = 0;
        cudaMemGetInfo(&free, &total);
        throw Error(
            LK_OUT_OF_DEVICE_MEMORY,
            format("the GPU is out of memory: %.1f MiB requested, %.1f of %.1f MiB free; lower the context size, the "
                   "sequences or the bits of the KV cache",
                   bytes / 0x1p20, free / 0x1p20, total / 0x1p20),
            bytes, free);
    }
    check(status, "cudaMallocAsync");
    return data;
}

void DeviceMemory::free(void* data, size_t) noexcept {
    cudaFreeAsync(data, nullptr);
}

void DeviceMemory::copy(void* to, const void* from, size_t bytes) {
    LK_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr));
}

void DeviceMemory::zero(void* data, size_t bytes) {
    LK_CUDA(cudaMemsetAsync(data, 0, bytes, nullptr));
}

void DeviceMemory::read(void* to, const void* from, size_t bytes) {
    LK_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

void DeviceMemory::write(void* to, const void* from, size_t bytes) {
    LK_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

namespace {

// Pinned memory, which the device can write directly.
class PinnedMemory final : public Memory {
public:
    bool on_host() const override { return true; }
    void* allocate(size_t bytes) override {
        void* data = nullptr;
        const cudaError_t status = cudaMallocHost(&data, bytes);
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            throw std::bad_alloc();
        }
        check(status, "cudaMallocHost");
        std::memset(data, 0, bytes);
        return data;
    }
    void free(void* data, size_t) noexcept override { cudaFreeHost(data); }
    void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
    void zero(void* data, size_t bytes) override { std::memset(data, 0, bytes); }
    void read(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
    void write(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
};

}  // namespace

Memory& DeviceMemory::nearest_host() {
    static PinnedMemory memory;
    return memory;
}

PinnedBuffer::~PinnedBuffer() {
    cudaFreeHost(data_);
}

uint8_t* PinnedBuffer::reserve(size_t bytes) {
    if (bytes > size_) {
        LK_CUDA(cudaFreeHost(data_));
        data_ = nullptr;
        size_ = 0;
        void* data = nullptr;
        LK_CUDA(cudaMallocHost(&data, 2 * bytes));
        data_ = static_cast<uint8_t*>(data);
        size_ = 2 * bytes;
    }
    return data_;
}

}  // namespace lk::cuda
