// Allocations that fail when a test wants them to, on whatever thread: operator new in all its forms, which the
// engine's buffers use too.
#pragma once

#include <cstdint>

namespace lk::test {

// While it lives, allocation number `nth` (from 1) fails, and all that follow it if `onward`.
class FailingAllocation {
public:
    explicit FailingAllocation(int64_t nth, bool onward = false);
    ~FailingAllocation();
    FailingAllocation(const FailingAllocation&) = delete;
    FailingAllocation& operator=(const FailingAllocation&) = delete;

    bool happened() const;  // there were that many allocations
};

}  // namespace lk::test
