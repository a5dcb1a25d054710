#include "backend/device.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "backend/plugin.h"
#include "backend/plugin_device.h"
#include "base/error.h"
#include "base/log.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace lk {

namespace {

#if defined(__linux__)

constexpr const char* kPlugin = "libllama-kivi-cuda.so";

// The plugin is beside the library that contains this function.
std::string plugin_path() {
    Dl_info here{};
    if (dladdr(reinterpret_cast<void*>(&plugin_path), &here) == 0 || here.dli_fname == nullptr) {
        return kPlugin;
    }
    const std::string self = here.dli_fname;
    const size_t slash = self.rfind('/');
    return slash == std::string::npos ? kPlugin : self.substr(0, slash + 1) + kPlugin;
}

const lk_plugin& load_plugin() {
    const std::string path = plugin_path();
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        const char* reason = dlerror();
        LK_FAIL(
            LK_DEVICE_ERROR,
            "the GPU cannot be used: %s was not loaded (%s). Use the package LlamaKivi.Backend.Cuda.Linux, build the "
            "library with CUDA, or leave all layers on the CPU",
            path.c_str(), reason != nullptr ? reason : "no reason given");
    }
    const auto* plugin = static_cast<const lk_plugin*>(dlsym(library, LK_PLUGIN_SYMBOL));
    const bool fits =
        plugin != nullptr && plugin->plugin_version == LK_PLUGIN_VERSION && plugin->abi_version == LK_ABI_VERSION;
    LK_CHECK(fits, LK_DEVICE_ERROR,
             "the GPU cannot be used: %s is from a different version of the library; build both together",
             path.c_str());
    log(LK_LOG_INFO, "%s loaded", path.c_str());
    return *plugin;
}

#else

const lk_plugin& load_plugin() {
    LK_FAIL(LK_DEVICE_ERROR, "the GPU cannot be used: there is no plugin for this system; leave all layers on the CPU");
}

#endif

// Loads the plugin once; after a failure, the next call tries again.
const lk_plugin& plugin() {
    static std::mutex mutex;
    static const lk_plugin* loaded = nullptr;
    const std::lock_guard lock(mutex);
    if (loaded == nullptr) {
        loaded = &load_plugin();
    }
    return *loaded;
}

}  // namespace

std::shared_ptr<Device> open_device(const DeviceWeights& weights, const std::function<bool(float)>& progress) {
    return open_plugin_device(plugin(), weights, progress);
}

lk_device_info describe_device(uint32_t index) {
    return describe_plugin_device(plugin(), index);
}

}  // namespace lk
