#include "base/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>

#include "base/atomic_wait.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace lk {

namespace {

// About 20 microseconds: longer than the gap between two loops of a forward pass, much shorter than a scheduler tick.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
    workers_.reserve(n_threads > 1 ? n_threads - 1 : 0);
    try {
        for (int i = 1; i < n_threads; ++i) {
            workers_.emplace_back([this, i] { work(i); });
        }
    } catch (...) {
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    stop();
}

void ThreadPool::stop() {
    stopping_ = true;
    state_.fetch_add(kLoop, std::memory_order_release);
    wake_all(state_);
    for (std::thread& worker : workers_) {
        worker.join();
    }
    workers_.clear();
}

void ThreadPool::take_tasks(int thread) {
    for (int i = next_task_.fetch_add(1, std::memory_order_relaxed); i < n_tasks_;
         i = next_task_.fetch_add(1, std::memory_order_relaxed)) {
        try {
            call_(body_, i, thread);
        } catch (...) {
            if (!failed_.exchange(true)) {
                error_ = std::current_exception();
            }
        }
    }
}

void ThreadPool::run(int n_tasks, Call call, const void* body) {
    call_ = call;
    body_ = body;
    n_tasks_ = n_tasks;
    next_task_.store(0, std::memory_order_relaxed);
    // No worker is in the previous loop, so no other thread changes the state now.
    state_.store((loop_of(state_.load(std::memory_order_relaxed)) + 1) * kLoop, std::memory_order_release);
    wake_all(state_);
    take_tasks(0);
    uint32_t state = state_.fetch_or(kClosed, std::memory_order_acq_rel) | kClosed;
    for (int spins = 0; has_workers(state); state = state_.load(std::memory_order_acquire)) {
        if (++spins < kSpins) {
            pause();
        } else {
            wait_while(state_, state);
        }
    }
    if (failed_.exchange(false)) {
        std::rethrow_exception(std::exchange(error_, nullptr));
    }
}

// Enters a loop unless it is closed or a newer one has started.
bool ThreadPool::join(uint32_t loop) {
    uint32_t state = state_.load(std::memory_order_acquire);
    while (loop_of(state) == loop && (state & kClosed) == 0) {
        if (state_.compare_exchange_weak(state, state + kWorker, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
            return true;
        }
    }
    return false;
}

void ThreadPool::work(int thread) {
    uint32_t seen = loop_of(kClosed);
    for (;;) {
        uint32_t state = state_.load(std::memory_order_acquire);
        for (int spins = 0; loop_of(state) == seen && !stopping_; state = state_.load(std::memory_order_acquire)) {
            if (++spins < kSpins) {
                pause();
            } else {
                wait_while(state_, state);
            }
        }
        if (stopping_) {
            return;
        }
        seen = loop_of(state);
        if (join(seen)) {
            take_tasks(thread);
            if (!has_workers(state_.fetch_sub(kWorker, std::memory_order_acq_rel) - kWorker)) {
                wake_all(state_);
            }
        }
    }
}

}  // namespace lk
