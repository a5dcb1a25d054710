// A semaphore and a barrier of two threads. Not those of the standard library: see base/atomic_wait.h.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace lk::test {

class Semaphore {
public:
    void release() {
        const std::lock_guard lock(mutex_);
        ++count_;
        changed_.notify_one();
    }
    void acquire() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return count_ > 0; });
        --count_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int count_ = 0;
};

// Two threads wait for each other, any number of times.
class Rendezvous {
public:
    void arrive_and_wait() {
        std::unique_lock lock(mutex_);
        const uint64_t phase = phase_;
        if (++arrived_ == 2) {
            arrived_ = 0;
            ++phase_;
            changed_.notify_one();
        } else {
            changed_.wait(lock, [&] { return phase_ != phase; });
        }
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int arrived_ = 0;
    uint64_t phase_ = 0;
};

}  // namespace lk::test
