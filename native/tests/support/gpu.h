// Decides whether GPU tests run. They are skipped only without a GPU; a GPU that the engine cannot use is a failure.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "llama_kivi.h"

namespace lk::test {

// State of the CUDA driver.
enum class Driver {
    missing,    // not installed
    no_device,  // finds no GPU, or all are hidden (CUDA_VISIBLE_DEVICES)
    device,     // finds a GPU
    broken,     // cannot be initialized
};

enum class GpuVerdict { run, skip, fail };

// usable: the engine can describe a GPU. device_file: the system has a GPU device file.
constexpr GpuVerdict judge_gpu(bool usable, Driver driver, bool device_file) {
    if (usable) {
        return GpuVerdict::run;
    }
    return driver == Driver::device || (driver != Driver::no_device && device_file) ? GpuVerdict::fail
                                                                                    : GpuVerdict::skip;
}

struct Gpu {
    GpuVerdict verdict;
    std::string reason;  // empty for `run`
};

// Looks for a GPU on the first call.
const Gpu& find_gpu();

}  // namespace lk::test

// Use in SetUp or at the start of a test.
#define LK_NEED_GPU()                                                                       \
    do {                                                                                    \
        const ::lk::test::Gpu& lk_gpu = ::lk::test::find_gpu();                             \
        if (lk_gpu.verdict == ::lk::test::GpuVerdict::skip) {                               \
            GTEST_SKIP() << "there is no GPU: " << lk_gpu.reason;                           \
        }                                                                                   \
        ASSERT_EQ(lk_gpu.verdict, ::lk::test::GpuVerdict::run)                              \
            << "this machine has a GPU, but the engine does not use it: " << lk_gpu.reason; \
    } while (false)
