#include <algorithm>
#include <bit>
#include <thread>

#include "base/processors.h"
#include "base/windows.h"

namespace lk {

int usable_processors() {
    DWORD_PTR process = 0;
    DWORD_PTR system = 0;
    // 0 if the process has threads in several groups of processors, each of up to 64.
    if (::GetProcessAffinityMask(::GetCurrentProcess(), &process, &system) != 0 && process != 0) {
        return std::popcount(process);
    }
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace lk
