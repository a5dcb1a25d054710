// Run-time choice of kernels, and how to name the processor.
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"

namespace lk {

namespace {

std::string processor_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (line.rfind("model name", 0) == 0) {
            const size_t colon = line.find(": ");
            return colon == std::string::npos ? line : line.substr(colon + 2);
        }
    }
    return "unknown processor";
}

}  // namespace

const cpu::Kernels& cpu::select_kernels() {
    // LLAMA_KIVI_CPU=portable runs the reference loops, to compare a result with.
    const char* wanted = std::getenv("LLAMA_KIVI_CPU");
    const bool portable = wanted != nullptr && std::strcmp(wanted, "portable") == 0;
#ifdef LK_HAVE_AVX2
    if (!portable && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        return avx2_kernels();
    }
#endif
    (void)portable;
    return portable_kernels();
}

const std::string& cpu_description() {
    static const std::string description = processor_name() + " | " + cpu::select_kernels().name;
    return description;
}

}  // namespace lk
