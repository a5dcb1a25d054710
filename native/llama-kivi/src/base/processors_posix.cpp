#include <algorithm>
#include <cstddef>
#include <thread>

#include "base/cpu_quota.h"
#include "base/processors.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace lk {
namespace {

int allowed_processors() {
#ifdef __linux__
    // glibc counts the machine's online processors, whatever taskset or a container's cpuset allows.
    for (int most = 1024; most <= 1 << 16; most *= 2) {  // the kernel refuses a set smaller than its own
        cpu_set_t* const set = CPU_ALLOC(most);
        if (set == nullptr) {
            break;
        }
        const size_t bytes = CPU_ALLOC_SIZE(most);
        const int n = ::sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (n > 0) {
            return n;
        }
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int usable_processors() {
    const int allowed = allowed_processors();
    const int granted = quota_processors();
    return granted > 0 ? std::min(allowed, granted) : allowed;
}

}  // namespace lk
