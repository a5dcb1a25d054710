#include "base/thread_pool.h"

#include <utility>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace lk {

namespace {

// About 20 microseconds: longer than the gap between two loops of a forward pass, short beside a scheduler tick.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
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
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
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
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take_tasks(0);
    for (int spins = 0; int busy = busy_.load(std::memory_order_acquire);) {
        if (++spins < kSpins) {
            pause();
        } else {
            busy_.wait(busy, std::memory_order_acquire);
        }
    }
    if (failed_.exchange(false)) {
        std::rethrow_exception(std::exchange(error_, nullptr));
    }
}

void ThreadPool::work(int thread) {
    uint32_t seen = 0;
    for (;;) {
        uint32_t epoch = epoch_.load(std::memory_order_acquire);
        for (int spins = 0; epoch == seen; epoch = epoch_.load(std::memory_order_acquire)) {
            if (++spins < kSpins) {
                pause();
            } else {
                epoch_.wait(seen, std::memory_order_acquire);
            }
        }
        seen = epoch;
        if (stopping_) {
            return;
        }
        take_tasks(thread);
        if (busy_.fetch_sub(1, std::memory_order_release) == 1) {
            busy_.notify_one();
        }
    }
}

}  // namespace lk
