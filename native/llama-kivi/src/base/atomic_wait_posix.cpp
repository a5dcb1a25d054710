#include <atomic>
#include <cstdint>

#include "base/atomic_wait.h"

namespace lk {

void wait_while(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
    value.wait(old, std::memory_order_acquire);
}

void wake_all(std::atomic<uint32_t>& value) noexcept {
    value.notify_all();
}

}  // namespace lk
