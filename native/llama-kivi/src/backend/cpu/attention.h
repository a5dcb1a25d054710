// Attention over the paged cache on the CPU. A task covers one sequence, one KV head, a block of query rows and a range
// of cache tokens; partial results of split ranges are merged.
#pragma once

#include <memory>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/thread_pool.h"

namespace lk::cpu {

class Attention {
public:
    Attention(const Kernels& kernels, int n_threads);
    ~Attention();

    void run(const AttentionArgs& args, ThreadPool& pool);

private:
    struct Scratch;  // per thread

    // Query tokens [token, token + n_tokens) of a segment, query heads of KV head `head`, cache tokens [begin, end).
    struct Task {
        int segment;
        int head;
        int token;
        int n_tokens;
        int begin;
        int end;
        int partial;   // index of its first row in partial_; -1: writes the output directly
        int n_splits;  // first task of its rows: number of tasks that share them; other tasks: 0
    };

    void plan(const AttentionArgs& args, int n_threads);
    void run_task(const AttentionArgs& args, const Task& task, Scratch& scratch);
    void merge(const AttentionArgs& args, const Task& task);

    const Kernels& kernels_;
    std::vector<std::unique_ptr<Scratch>> scratch_;
    std::vector<Task> tasks_;
    std::vector<float> partial_;  // [row, D + 2]: output, maximum, sum
};

}  // namespace lk::cpu
