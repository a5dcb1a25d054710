// Waiting for an atomic to change. Not std::atomic::wait: without futexes, libstdc++ 12 checks the value before it
// takes the lock that it waits with, so a notification between the two is lost and the waiter sleeps on.
#pragma once

#include <atomic>
#include <cstdint>

namespace lk {

// Returns when the value is no longer `old`; may return earlier.
void wait_while(const std::atomic<uint32_t>& value, uint32_t old) noexcept;

// Wakes all threads that wait for the value.
void wake_all(std::atomic<uint32_t>& value) noexcept;

}  // namespace lk
