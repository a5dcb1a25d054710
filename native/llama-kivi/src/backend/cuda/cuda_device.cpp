#include "backend/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <cstdio>

#include "base/error.h"

namespace lk::cuda {

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
    weights_.upload(memory_, host, bytes);
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
