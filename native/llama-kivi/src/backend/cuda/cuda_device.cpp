#include "backend/cuda/cuda_device.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace lk::cuda {

void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess) {
        cudaGetLastError();  // clear the error, or the next call would report it
        LK_FAIL(LK_DEVICE_ERROR, "the GPU's driver failed: %s (%s)", cudaGetErrorString(status), call);
    }
}

namespace {

// Allocates from a pool that keeps freed memory, because pages are allocated and freed often.
void keep_freed_memory() {
    cudaMemPool_t pool = nullptr;
    LK_CUDA(cudaDeviceGetDefaultMemPool(&pool, 0));
    uint64_t all = UINT64_MAX;
    LK_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
}

int count_devices() {
    int n = 0;
    const cudaError_t status = cudaGetDeviceCount(&n);
    if (status != cudaSuccess || n == 0) {
        cudaGetLastError();
        LK_FAIL(LK_DEVICE_ERROR, "the GPU cannot be used: %s; leave all layers on the CPU",
                status != cudaSuccess ? cudaGetErrorString(status) : "the driver reports none");
    }
    return n;
}

constexpr int kLeastCapability = 80;

}  // namespace

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

CudaDevice::CudaDevice(const DeviceWeights& weights, const std::function<bool(float)>& progress) {
    count_devices();
    cudaDeviceProp properties{};
    LK_CUDA(cudaSetDevice(0));
    LK_CUDA(cudaGetDeviceProperties(&properties, 0));
    LK_CHECK(properties.major * 10 + properties.minor >= kLeastCapability, LK_DEVICE_ERROR,
             "the GPU cannot be used: %s has compute capability %d.%d; 8.0 or later is needed", properties.name,
             properties.major, properties.minor);
    processors_ = {properties.multiProcessorCount, static_cast<int>(properties.sharedMemPerBlockOptin)};
    keep_freed_memory();

    size_t total = 1;
    size_t done = 0;
    for (const std::span<const uint8_t>& part : weights.data) {
        total += part.size();
    }
    for (const std::span<const uint8_t>& part : weights.data) {
        LK_CHECK(!progress || progress(static_cast<float>(done) / static_cast<float>(total)), LK_CANCELLED,
                 "copying the model to the GPU was cancelled");
        upload(part.data(), part.size());
        done += part.size();
    }
    frequency_ = weights.rope_frequency.data();
    n_rot_ = static_cast<int>(weights.rope_frequency.size()) * 2;
}

void CudaDevice::upload(const void* host, size_t bytes) {
    if (bytes == 0 || weights_.count(host) > 0) {
        return;  // tied weights: the output matrix may be the token embedding
    }
    constexpr size_t kPadding = 16;  // kernels read whole words around unaligned addresses; see load_words
    Buffer<uint8_t> buffer(memory_, bytes + kPadding);
    memory_.write(buffer.data(), host, bytes);
    weights_.emplace(host, std::move(buffer));
}

const uint8_t* CudaDevice::weights(const void* host) const {
    const auto found = weights_.find(host);
    LK_CHECK(found != weights_.end(), LK_INTERNAL_ERROR, "a kernel needs weights that are not on the GPU");
    return found->second.data();
}

namespace {

lk_device_info describe(uint32_t index) {
    const int n = count_devices();
    LK_CHECK(index < static_cast<uint32_t>(n), LK_DEVICE_ERROR, "there is no GPU %u; this machine has %d", index, n);
    cudaDeviceProp properties{};
    LK_CUDA(cudaGetDeviceProperties(&properties, static_cast<int>(index)));
    lk_device_info info{};
    std::snprintf(info.name, sizeof(info.name), "%.*s", static_cast<int>(sizeof(info.name)) - 1, properties.name);
    int driver = 0;
    int runtime = 0;
    LK_CUDA(cudaDriverGetVersion(&driver));
    LK_CUDA(cudaRuntimeGetVersion(&runtime));
    std::snprintf(info.driver, sizeof(info.driver), "driver for CUDA %d.%d, runtime %d.%d", driver / 1000,
                  driver % 100 / 10, runtime / 1000, runtime % 100 / 10);
    info.capability = properties.major * 10 + properties.minor;
    info.n_processors = properties.multiProcessorCount;
    size_t free = 0;
    size_t total = 0;
    LK_CUDA(cudaSetDevice(static_cast<int>(index)));
    LK_CUDA(cudaMemGetInfo(&free, &total));
    info.memory_bytes = total;
    info.free_bytes = free;
    return info;
}

Device* open(const DeviceWeights& weights, const std::function<bool(float)>& progress) {
    return new CudaDevice(weights, progress);
}

}  // namespace

}  // namespace lk::cuda

extern "C" __attribute__((visibility("default")))
const lk::DevicePlugin lk_device_plugin = {LK_ABI_VERSION, lk::cuda::open, lk::cuda::describe};
