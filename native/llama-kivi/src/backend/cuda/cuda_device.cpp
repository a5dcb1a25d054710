#include "backend/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "backend/cuda/device/cublas.h"
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

// LLAMA_KIVI_CUDA_WGMMA=0 runs the kernels of other GPUs, for comparisons.
bool runs_wgmma(const cudaDeviceProp& properties) {
#ifdef LK_CUDA_WGMMA
    constexpr bool kCompiled = true;
#else
    constexpr bool kCompiled = false;
#endif
    const char* const text = std::getenv("LLAMA_KIVI_CUDA_WGMMA");
    const std::string_view wanted = text != nullptr ? text : "1";
    LK_CHECK(wanted == "0" || wanted == "1", LK_INVALID_ARGUMENT, "LLAMA_KIVI_CUDA_WGMMA is '%s'; set it to 0 or 1",
             text);
    return kCompiled && wanted == "1" && properties.major == 9 && properties.minor == 0;
}

}  // namespace

CudaDevice::CudaDevice(const lk_plugin_weights& weights, lk_plugin_progress progress, void* user_data) {
    count_devices();
    cudaDeviceProp properties{};
    LK_CUDA(cudaSetDevice(0));
    LK_CUDA(cudaGetDeviceProperties(&properties, 0));
    LK_CHECK(properties.major * 10 + properties.minor >= kLeastCapability, LK_DEVICE_ERROR,
             "the GPU cannot be used: %s has compute capability %d.%d; 8.0 or later is needed", properties.name,
             properties.major, properties.minor);
    cublas_library();  // before the weights are copied
    processors_ = {properties.multiProcessorCount, static_cast<int>(properties.sharedMemPerBlockOptin),
                   runs_wgmma(properties)};
    keep_freed_memory();

    const std::span<const lk_plugin_bytes> parts(weights.data, weights.n_data);
    size_t total = 1;
    size_t done = 0;
    for (const lk_plugin_bytes& part : parts) {
        total += part.size;
    }
    for (const lk_plugin_bytes& part : parts) {
        LK_CHECK(progress(static_cast<float>(done) / static_cast<float>(total), user_data) != 0, LK_CANCELLED,
                 "copying the model to the GPU was cancelled");
        upload(part.data, part.size);
        done += part.size;
    }
    frequency_ = weights.frequency;
    n_rot_ = weights.n_frequency * 2;
}

lk_device_info describe_device(uint32_t index) {
    const int n = count_devices();
    LK_CHECK(index < static_cast<uint32_t>(n), LK_DEVICE_ERROR, "there is no GPU %u; this machine has %d", index, n);
    cublas_library();
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

}  // namespace lk::cuda
