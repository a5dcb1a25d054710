// Whether tests of a GPU can run: they are skipped only where there is none. A GPU that cannot be used is a failure.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "llama_kivi.h"

namespace lk::test {

// What the driver of CUDA says.
enum class Driver {
    missing,    // it is not installed
    no_device,  // it finds no GPU, or all are hidden (CUDA_VISIBLE_DEVICES)
    device,     // it finds one
    broken,     // it cannot start
};

enum class GpuVerdict { run, skip, fail };

// usable: the engine describes a GPU. device_file: the system has a device file of one.
constexpr GpuVerdict judge_gpu(bool usable, Driver driver, bool device_file) {
    if (usable) {
        return GpuVerdict::run;
    }
    return driver == Driver::device || (driver != Driver::no_device && device_file) ? GpuVerdict::fail
                                                                                    : GpuVerdict::skip;
}

struct Gpu {
    GpuVerdict verdict;
    std::string reason;  // unless it is run
};

// Looks once.
const Gpu& find_gpu();

}  // namespace lk::test

// In SetUp, or at the beginning of a test.
#define LK_NEED_GPU()                                                               \
    do {                                                                            \
        const ::lk::test::Gpu& lk_gpu = ::lk::test::find_gpu();                     \
        if (lk_gpu.verdict == ::lk::test::GpuVerdict::skip) {                       \
            GTEST_SKIP() << "there is no GPU: " << lk_gpu.reason;                   \
        }                                                                           \
        ASSERT_EQ(lk_gpu.verdict, ::lk::test::GpuVerdict::run)                      \
            << "there is a GPU, and the engine does not use it: " << lk_gpu.reason; \
    } while (false)
