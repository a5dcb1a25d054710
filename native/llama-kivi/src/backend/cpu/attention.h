// Attention over the paged cache on the CPU. A task covers a tile of query rows and a range of cache chunks; the sums
// of chunks are added in order, so that no result depends on how the work is split.
#pragma once

#include <memory>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/thread_pool.h"

namespace lk::cpu {

class Tile;

class Attention {
public:
    Attention(const Kernels& kernels, int n_threads);
    ~Attention();

    // The segments' pages of this layer are staged.
    void run(const AttentionArgs& args, ThreadPool& pool);

private:
    // Query tokens [token, token + n_tokens) of a segment.
    struct TileRange {
        int segment;
        int token;
        int n_tokens;
    };

    // Chunks [first_chunk, first_chunk + n_chunks) for the query heads of KV head `head`.
    struct Task {
        TileRange rows;
        int head;
        int first_chunk;
        int n_chunks;
        int partial;  // of the first chunk: index of its first row in partial_; -1: writes the output directly
        int n_split;  // chunks of the whole tile, in the first task of a split tile; otherwise 0
    };

    void cut_tiles(const AttentionArgs& args);
    void plan(const AttentionArgs& args, int n_threads);
    void run_task(const AttentionArgs& args, const Task& task, Tile& tile);
    void merge(const AttentionArgs& args, const Task& task, Tile& tile);

    const Kernels& kernels_;
    std::vector<std::unique_ptr<Tile>> scratch_;  // per thread
    std::vector<TileRange> tiles_;
    std::vector<Task> tasks_;
    std::vector<float> partial_;  // [chunk of a tile, row, sums_width]
};

}  // namespace lk::cpu
