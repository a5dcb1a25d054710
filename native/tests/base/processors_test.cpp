// The default number of threads: the processors that the process may use, not those that the machine has.
#include <gtest/gtest.h>

#include "backend/cpu/cpu_backend.h"

#ifdef _WIN32
#include "base/windows.h"

#include <tlhelp32.h>
#elif defined(__linux__)
#include <sched.h>

#include <filesystem>
#endif

namespace lk {
namespace {

#ifdef _WIN32

int threads_of_process() {
    const windows::Handle snapshot(::CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0));
    THREADENTRY32 entry = {};
    entry.dwSize = sizeof(entry);
    int n = 0;
    for (BOOL more = ::Thread32First(snapshot.handle, &entry); more != 0;
         more = ::Thread32Next(snapshot.handle, &entry)) {
        n += entry.th32OwnerProcessID == ::GetCurrentProcessId() ? 1 : 0;
    }
    return n;
}

// Binds the process to its first processor.
class OneProcessor {
public:
    OneProcessor() {
        DWORD_PTR system = 0;
        ok_ = ::GetProcessAffinityMask(::GetCurrentProcess(), &before_, &system) != 0 &&
              ::SetProcessAffinityMask(::GetCurrentProcess(), before_ & (~before_ + 1)) != 0;
    }
    ~OneProcessor() { ::SetProcessAffinityMask(::GetCurrentProcess(), before_); }
    OneProcessor(const OneProcessor&) = delete;
    OneProcessor& operator=(const OneProcessor&) = delete;
    bool ok() const { return ok_; }

private:
    DWORD_PTR before_ = 0;
    bool ok_ = false;
};

#elif defined(__linux__)

int threads_of_process() {
    namespace fs = std::filesystem;
    return static_cast<int>(std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
}

// Binds the thread, which is the process's first, to its first processor.
class OneProcessor {
public:
    OneProcessor() {
        cpu_set_t one;
        CPU_ZERO(&one);
        ok_ = ::sched_getaffinity(0, sizeof(before_), &before_) == 0;
        for (int i = 0; ok_ && i < CPU_SETSIZE; ++i) {
            if (CPU_ISSET(i, &before_)) {
                CPU_SET(i, &one);
                break;
            }
        }
        ok_ = ok_ && ::sched_setaffinity(0, sizeof(one), &one) == 0;
    }
    ~OneProcessor() { ::sched_setaffinity(0, sizeof(before_), &before_); }
    OneProcessor(const OneProcessor&) = delete;
    OneProcessor& operator=(const OneProcessor&) = delete;
    bool ok() const { return ok_; }

private:
    cpu_set_t before_;
    bool ok_ = false;
};

#endif

#if defined(_WIN32) || defined(__linux__)

TEST(Processors, AreThoseOfTheProcess) {
    const OneProcessor one;
    if (!one.ok()) {
        GTEST_SKIP() << "the process cannot be bound to a processor here";
    }
    const int before = threads_of_process();
    const std::unique_ptr<Backend> whole = make_cpu_backend(0);
    EXPECT_EQ(threads_of_process(), before);  // the caller computes alone
    const std::unique_ptr<Backend> three = make_cpu_backend(3);
    EXPECT_EQ(threads_of_process(), before + 2);
}

#endif

}  // namespace
}  // namespace lk
