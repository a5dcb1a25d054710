// Shared code of the device benchmarks.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <vector>

#include "base/error.h"
#include "kv/cache.h"
#include "model/model.h"

namespace lk::bench {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// memcpy bandwidth within device memory: bytes read plus written per second.
inline double copy_speed(Device& device) {
    constexpr size_t kBytes = size_t{2} << 30;
    constexpr int kRuns = 20;
    Memory& memory = device.memory();
    Buffer<uint8_t> from(memory, kBytes);
    Buffer<uint8_t> to(memory, kBytes);
    uint8_t last = 0;
    const auto run = [&](int n) {
        for (int i = 0; i < n; ++i) {
            memory.copy(to.data(), from.data(), kBytes);
        }
        memory.read(&last, to.data() + kBytes - 1, 1);
    };
    run(3);
    const auto start = Clock::now();
    run(kRuns);
    return 2.0 * kBytes * kRuns / seconds_since(start);
}

// Seconds per call of `work`, which queues operations on the backend: median of 11 runs of `calls` calls.
template <class Work>
double median_seconds(Backend& backend, const Work& work, int calls = 1) {
    constexpr int kTimes = 11;
    const auto run = [&](int n) {
        for (int i = 0; i < n; ++i) {
            work();
        }
        backend.finish();
    };
    run(3);
    std::vector<double> times;
    for (int i = 0; i < kTimes; ++i) {
        const auto start = Clock::now();
        run(calls);
        times.push_back(seconds_since(start) / calls);
    }
    std::sort(times.begin(), times.end());
    return times[kTimes / 2];
}

// The program: opens the device by the model in argv[1] and runs body(device). arguments: those of the usage message.
template <class Body>
int run_on_device(int argc, char** argv, const char* arguments, const Body& body) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s %s\n", argv[0], arguments);
        return 2;
    }
    try {
        const auto model = Model::load(argv[1], true, -1, nullptr);
        body(*model->device);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}

}  // namespace lk::bench
