// A fixed set of threads for short parallel loops. Workers spin briefly between loops, then sleep. A loop waits only
// for the workers that joined it, so a descheduled worker does not delay it.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace lk {

class ThreadPool {
public:
    explicit ThreadPool(int n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs body(task, thread) for every task in [0, n_tasks). Threads take tasks in order, one at a time. Returns when
    // all are done; rethrows the first exception of a task. Allocates nothing.
    template <class Body>
    void parallel_for(int n_tasks, const Body& body) {
        if (workers_.empty() || n_tasks <= 1) {
            for (int i = 0; i < n_tasks; ++i) {
                body(i, 0);
            }
            return;
        }
        run(
            n_tasks, [](const void* b, int task, int thread) { (*static_cast<const Body*>(b))(task, thread); }, &body);
    }

private:
    using Call = void (*)(const void* body, int task, int thread);

    // state_: bit 0: the loop is closed to further workers; bits 1-11: workers in the loop; bits 12-31: loop number.
    static constexpr uint32_t kClosed = 1;
    static constexpr uint32_t kWorker = 2;
    static constexpr uint32_t kLoop = 1u << 12;
    static uint32_t loop_of(uint32_t state) { return state / kLoop; }
    static bool has_workers(uint32_t state) { return state % kLoop >= kWorker; }

    void run(int n_tasks, Call call, const void* body);
    void work(int thread);
    bool join(uint32_t loop);
    void take_tasks(int thread);
    void stop();

    std::vector<std::thread> workers_;
    Call call_ = nullptr;
    const void* body_ = nullptr;
    int n_tasks_ = 0;
    alignas(64) std::atomic<int> next_task_{0};
    alignas(64) std::atomic<uint32_t> state_{kClosed};
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
    std::atomic<bool> stopping_{false};
};

}  // namespace lk
