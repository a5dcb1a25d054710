// Selects the kernels at run time and describes the processor.
#include <cstdlib>
#include <cstring>
#include <fstream>

#ifdef LK_HAVE_AVX2
#include <cpuid.h>
#endif
#if defined(LK_HAVE_NEON) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"
#include "base/error.h"

namespace lk {

namespace {

#if defined(LK_HAVE_AVX2)
// The processor tells its name itself, on every system.
std::string processor_name() {
    constexpr unsigned kFirstLeaf = 0x80000002;
    constexpr unsigned kLastLeaf = 0x80000004;
    char text[49] = {};
    for (unsigned leaf = kFirstLeaf; leaf <= kLastLeaf; ++leaf) {
        unsigned words[4];
        if (__get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3]) == 0) {
            return "unknown processor";
        }
        std::memcpy(text + 16 * (leaf - kFirstLeaf), words, sizeof words);
    }
    const std::string name = text;
    const size_t first = name.find_first_not_of(' ');
    return first == std::string::npos ? "unknown processor"
                                      : name.substr(first, name.find_last_not_of(' ') - first + 1);
}
#elif defined(__APPLE__)
std::string processor_name() {
    char text[256] = {};
    size_t size = sizeof text - 1;
    return ::sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) == 0 ? text : "unknown processor";
}
#else
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
#endif

#ifdef LK_HAVE_AVX2
// Not every compiler's __builtin_cpu_supports knows "f16c".
bool has_f16c() {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

#ifdef LK_HAVE_NEON
bool has_dot_products() {
#if defined(__linux__)
    constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
    return (::getauxval(AT_HWCAP) & kDotProducts) != 0;
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    return ::sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#else
    return false;
#endif
}
#endif

}  // namespace

std::vector<cpu::NamedKernels> cpu::available_kernels() {
    std::vector<NamedKernels> tables;
#ifdef LK_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
            tables.push_back({"vnni", &vnni::kernels()});
        }
        tables.push_back({"avx2", &avx2::kernels()});
    }
#endif
#ifdef LK_HAVE_NEON
    if (has_dot_products()) {
        tables.push_back({"dotprod", &dotprod::kernels()});
    }
    tables.push_back({"neon", &neon::kernels()});
#endif
    tables.push_back({"portable", &portable_kernels()});
    return tables;
}

const cpu::Kernels& cpu::select_kernels() {
    const std::vector<NamedKernels> tables = available_kernels();
    const char* wanted = std::getenv("LLAMA_KIVI_CPU");
    if (wanted == nullptr || *wanted == '\0') {
        return *tables.front().kernels;
    }
    std::string ids;
    for (const NamedKernels& table : tables) {
        if (std::strcmp(wanted, table.id) == 0) {
            return *table.kernels;
        }
        ids += (ids.empty() ? "" : ", ") + std::string(table.id);
    }
    LK_FAIL(LK_INVALID_ARGUMENT, "LLAMA_KIVI_CPU is \"%s\"; this processor supports: %s", wanted, ids.c_str());
}

const std::string& cpu_description() {
    static const std::string description = processor_name() + " | " + cpu::select_kernels().name;
    return description;
}

}  // namespace lk
