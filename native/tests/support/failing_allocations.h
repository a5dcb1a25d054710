// Failing and counted allocations on demand, on any thread: replaces operator new in all its forms, which the engine's
// buffers use too.
#pragma once

#include <cstdint>

namespace lk::test {

// During its lifetime, allocation `nth` (from 1) fails, and with `onward` all later ones.
class FailingAllocation {
public:
    explicit FailingAllocation(int64_t nth, bool onward = false);
    ~FailingAllocation();
    FailingAllocation(const FailingAllocation&) = delete;
    FailingAllocation& operator=(const FailingAllocation&) = delete;

    bool happened() const;  // whether allocation `nth` was reached
};

// Bytes that allocations requested during its lifetime.
class AllocatedBytes {
public:
    AllocatedBytes();
    int64_t count() const;

private:
    int64_t before_;
};

}  // namespace lk::test
