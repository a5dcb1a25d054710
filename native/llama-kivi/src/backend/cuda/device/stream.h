// A backend's stream. Runs the launches of a decode step as CUDA graphs: they are recorded from begin to finish and
// compared with those of earlier passes. A graph with the same launches runs again as it is; if only grids or arguments
// differ, it is updated. Passes of other kinds, and the first one of each kind, are queued launch by launch.
//
// A step is cut into a few graphs, each twice as long as the one before it: the device runs one while the host records
// the next, which is faster than one graph that starts when everything is recorded.
//
// LLAMA_KIVI_CUDA_GRAPHS: number of launches in the first graph of a step; 0 queues every pass launch by launch.
// `check` makes it an error if the driver refuses a graph, and prints how many graphs ran when the backend is freed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/device/cublas.h"
#include "backend/cuda/device/graph.h"
#include "backend/cuda/device/graph_cache.h"
#include "backend/cuda/device/launch_list.h"
#include "backend/cuda/device/memory.h"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

class Stream {
public:
    explicit Stream(Memory& memory);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Records the following launches, of a pass with n_rows rows. Launches that are still recorded are dropped: their
    // pass failed before it was finished.
    void record(int n_rows);
    void drop();
    // Runs what is recorded and ends the recording.
    void end();

    // For copies that precede the recorded launches. These must not read or write the copied memory.
    cudaStream_t ahead() const { return streams_.main; }
    // For other work. Runs what is recorded first; then launches are no longer recorded.
    cudaStream_t next();

    // A kernel or a matmul: queued, or recorded.
    cudaError_t run(const KernelLaunch& launch);
    void multiply(const Gemm& gemm);

    // Grows a buffer and discards its content. Runs what is recorded first, because it may use the old buffer.
    template <class T>
    void grow(Buffer<T>& buffer, size_t size) {
        if (buffer.size() < size) {
            if (buffer.size() > 0) {
                next();
            }
            cuda::grow(buffer, memory_, size);
        }
    }

    // While it exists, launches are recorded apart, to be queued after the graph: for launches that only some steps
    // need, on whose results no other launch of the pass depends.
    class AfterGraph {
    public:
        explicit AfterGraph(Stream& stream) : stream_(stream) { stream_.after_graph_ = true; }
        ~AfterGraph() { stream_.after_graph_ = false; }
        AfterGraph(const AfterGraph&) = delete;
        AfterGraph& operator=(const AfterGraph&) = delete;

    private:
        Stream& stream_;
    };

private:
    struct Streams {
        Streams();
        ~Streams();
        Streams(const Streams&) = delete;
        Streams& operator=(const Streams&) = delete;

        cudaStream_t main = nullptr;     // ordered with the legacy stream, on which buffers are allocated and copied
        cudaStream_t capture = nullptr;  // not ordered with it; see CudaGraph
    };

    void add(const Launch& launch, std::span<const LaunchArgument> arguments);
    void run_graph();
    void run_list(LaunchList& list);
    std::unique_ptr<CudaGraph> make_graph(LaunchList& list);
    static Gemm gemm_of(const LaunchList& list, size_t i);

    struct Setting {
        size_t first_launches;  // in the first graph of a step; 0: no graphs
        bool check;
    };
    static Setting read_setting();

    Memory& memory_;
    Streams streams_;
    Cublas blas_;
    Setting graphs_;
    bool recording_ = false;
    bool after_graph_ = false;
    int n_rows_ = 0;            // of the recorded pass
    int part_ = 0;              // graphs of the pass so far
    size_t most_launches_ = 0;  // in the next graph
    LaunchList recorded_;
    LaunchList recorded_after_;
    std::vector<LaunchArgument> arguments_;  // scratch of run
    GraphCache<CudaGraph> cache_;
};

}  // namespace lk::cuda
