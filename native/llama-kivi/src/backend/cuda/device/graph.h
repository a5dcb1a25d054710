// A CUDA graph of recorded launches.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cuda/device/launch_list.h"

namespace lk::cuda {

class CudaGraph {
public:
    // queue: queues launch i of the list on the stream; may throw. Returns null and the reason if the driver or a
    // launch refuses. The stream must not synchronize with the legacy stream, or work of other threads on it would
    // fail.
    static std::unique_ptr<CudaGraph> capture(LaunchList& list, cudaStream_t stream,
                                              const std::function<cudaError_t(size_t)>& queue, cudaError_t& reason);
    ~CudaGraph();
    CudaGraph(const CudaGraph&) = delete;
    CudaGraph& operator=(const CudaGraph&) = delete;

    // See GraphCache.
    bool update(LaunchList& list, size_t i);
    cudaError_t launch(cudaStream_t stream) { return cudaGraphLaunch(executable_, stream); }

private:
    CudaGraph() = default;

    cudaGraph_t graph_ = nullptr;
    cudaGraphExec_t executable_ = nullptr;
    std::vector<cudaGraphNode_t> nodes_;  // per launch; null if unknown
};

}  // namespace lk::cuda
