// A fixed team of threads for short parallel loops: workers spin briefly between loops, then sleep.
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

    // Runs body(task, thread) for every task in [0, n_tasks); tasks are handed out in order, one at a time.
    // Returns when all are done, then rethrows the first exception a task threw. Allocates nothing.
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

    void run(int n_tasks, Call call, const void* body);
    void work(int thread);
    void take_tasks(int thread);
    void stop();

    std::vector<std::thread> workers_;
    Call call_ = nullptr;
    const void* body_ = nullptr;
    int n_tasks_ = 0;
    alignas(64) std::atomic<int> next_task_{0};
    alignas(64) std::atomic<uint32_t> epoch_{0};  // one more for every loop; workers wait on it
    alignas(64) std::atomic<int> busy_{0};        // workers still in the current loop
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
    bool stopping_ = false;
};

}  // namespace lk
