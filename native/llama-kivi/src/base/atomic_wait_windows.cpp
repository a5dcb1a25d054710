#include <atomic>
#include <cstdint>

#include "base/atomic_wait.h"
#include "base/windows.h"

namespace lk {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "the system compares the value at its address");

void wait_while(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
    auto* const address = const_cast<std::atomic<uint32_t>*>(&value);
    ::WaitOnAddress(address, &old, sizeof(old), INFINITE);
}

void wake_all(std::atomic<uint32_t>& value) noexcept {
    ::WakeByAddressAll(&value);
}

}  // namespace lk
