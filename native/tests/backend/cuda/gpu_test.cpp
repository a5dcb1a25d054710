#include "support/gpu.h"

#ifdef __linux__
#include <dlfcn.h>
#endif

#include <cctype>
#include <filesystem>

namespace lk::test {

namespace {

#ifdef __linux__
Driver find_driver() {
    constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        return Driver::missing;
    }
    const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(library, "cuInit"));
    const auto count_devices = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDeviceGetCount"));
    if (init == nullptr || count_devices == nullptr) {
        return Driver::broken;
    }
    if (const int status = init(0); status != 0) {
        return status == kNoDevice ? Driver::no_device : Driver::broken;
    }
    int n = 0;
    if (count_devices(&n) != 0) {
        return Driver::broken;
    }
    return n > 0 ? Driver::device : Driver::no_device;
}
#else
Driver find_driver() {
    return Driver::missing;
}
#endif

// /dev/nvidia0 and so on, or WSL's /dev/dxg. /dev/nvidiactl alone is a driver without a GPU.
bool has_device_file() {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/dev", ignored)) {
        const std::string name = entry.path().filename().string();
        const bool numbered =
            name.size() > 6 && name.rfind("nvidia", 0) == 0 && std::isdigit(static_cast<unsigned char>(name[6])) != 0;
        if (numbered || name == "dxg") {
            return true;
        }
    }
    return false;
}

Gpu look() {
    lk_device_info device;
    if (lk_device_describe(0, &device) == LK_OK) {
        return {GpuVerdict::run, {}};
    }
    std::string reason = lk_last_error();
    // Without a device file the driver is not initialized: that is slow and leaks memory.
    const bool device_file = has_device_file();
    return {judge_gpu(false, device_file ? find_driver() : Driver::missing, device_file), std::move(reason)};
}

}  // namespace

const Gpu& find_gpu() {
    static const Gpu gpu = look();
    return gpu;
}

// ---- the decision

static_assert(judge_gpu(true, Driver::device, true) == GpuVerdict::run);
static_assert(judge_gpu(false, Driver::missing, false) == GpuVerdict::skip);

TEST(GpuTests, AreSkippedOnlyWithoutAGpu) {
    EXPECT_EQ(judge_gpu(false, Driver::no_device, false), GpuVerdict::skip);
    EXPECT_EQ(judge_gpu(false, Driver::no_device, true), GpuVerdict::skip) << "the user hides it";
    EXPECT_EQ(judge_gpu(false, Driver::broken, false), GpuVerdict::skip) << "a driver without a GPU";
    EXPECT_EQ(judge_gpu(false, Driver::device, true), GpuVerdict::fail) << "no plugin, or one that does not load";
    EXPECT_EQ(judge_gpu(false, Driver::device, false), GpuVerdict::fail);
    EXPECT_EQ(judge_gpu(false, Driver::broken, true), GpuVerdict::fail);
    EXPECT_EQ(judge_gpu(false, Driver::missing, true), GpuVerdict::fail);
}

// On this machine: with a GPU its tests run; without one there is a reason for skipping them.
TEST(GpuTests, TheVerdictHasAReason) {
    const Gpu& gpu = find_gpu();
    EXPECT_EQ(gpu.verdict == GpuVerdict::run, gpu.reason.empty());
    EXPECT_NE(gpu.verdict, GpuVerdict::fail)
        << "this machine has a GPU, but the engine does not use it: " << gpu.reason;
}

}  // namespace lk::test
