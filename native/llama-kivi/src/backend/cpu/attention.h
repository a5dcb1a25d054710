// Attention over the paged cache on the CPU: work is cut into tasks of one sequence, one KV head, a block of query rows
// and a range of tokens; partial results of a split range are merged.
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
    struct Scratch;  // of one thread

    // Query tokens [token, token + n_tokens) of a segment, the heads of KV head `head`, cache tokens [begin, end).
    struct Task {
        int segment;
        int head;
        int token;
        int n_tokens;
        int begin;
        int end;
        int partial;   // index of its first row in the partial results; -1: writes the output itself
        int n_splits;  // tasks that share its rows, the first of which is merged into the output
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
