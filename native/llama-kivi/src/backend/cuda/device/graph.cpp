#include "backend/cuda/device/graph.h"

namespace lk::cuda {

namespace {

// The node that the next launch on a capturing stream will depend on: the last one captured. Null if there are several.
cudaError_t last_node(cudaStream_t stream, cudaGraphNode_t& node) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaGraphNode_t* nodes = nullptr;
    size_t n = 0;
#if CUDART_VERSION >= 12030
    const cudaGraphEdgeData* edges = nullptr;
#endif
#if CUDART_VERSION >= 13000
    const cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &n);
#elif CUDART_VERSION >= 12030
    const cudaError_t error = cudaStreamGetCaptureInfo_v3(stream, &status, nullptr, nullptr, &nodes, &edges, &n);
#else
    const cudaError_t error = cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, nullptr, &nodes, &n);
#endif
    if (error != cudaSuccess) {
        return error;
    }
    if (status != cudaStreamCaptureStatusActive) {
        return cudaErrorStreamCaptureInvalidated;
    }
    node = n == 1 ? nodes[0] : nullptr;
    return cudaSuccess;
}

// Ends the capture, also when a launch throws: the stream could not be used again otherwise.
class Capture {
public:
    explicit Capture(cudaStream_t stream) : stream_(stream) {}
    ~Capture() {
        if (active_) {
            cudaGraph_t graph = nullptr;
            cudaStreamEndCapture(stream_, &graph);
            if (graph != nullptr) {
                cudaGraphDestroy(graph);
            }
            cudaGetLastError();
        }
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    cudaError_t begin() {
        // Other threads may allocate memory meanwhile.
        const cudaError_t status = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
        active_ = status == cudaSuccess;
        return status;
    }
    cudaError_t end(cudaGraph_t& graph) {
        active_ = false;
        return cudaStreamEndCapture(stream_, &graph);
    }

private:
    cudaStream_t stream_;
    bool active_ = false;
};

}  // namespace

std::unique_ptr<CudaGraph> CudaGraph::capture(LaunchList& list, cudaStream_t stream,
                                              const std::function<cudaError_t(size_t)>& queue, cudaError_t& reason) {
    std::unique_ptr<CudaGraph> graph(new CudaGraph);
    graph->nodes_.resize(list.size());
    Capture capture(stream);
    reason = capture.begin();
    for (size_t i = 0; i < list.size() && reason == cudaSuccess; ++i) {
        reason = queue(i);
        if (reason == cudaSuccess) {
            reason = last_node(stream, graph->nodes_[i]);
        }
    }
    if (reason == cudaSuccess) {
        reason = capture.end(graph->graph_);
    }
    if (reason == cudaSuccess) {
        reason = cudaGraphInstantiateWithFlags(&graph->executable_, graph->graph_, 0);
    }
    if (reason == cudaSuccess) {
        return graph;
    }
    cudaGetLastError();  // clear the error, or the next call would report it
    return nullptr;
}

CudaGraph::~CudaGraph() {
    if (executable_ != nullptr) {
        cudaGraphExecDestroy(executable_);
    }
    if (graph_ != nullptr) {
        cudaGraphDestroy(graph_);
    }
}

bool CudaGraph::update(LaunchList& list, size_t i) {
    if (nodes_[i] == nullptr) {
        return false;
    }
    const Launch& launch = list[i];
    cudaKernelNodeParams parameters{};
    parameters.func = const_cast<void*>(launch.function);
    parameters.gridDim = dim3(launch.grid.x, launch.grid.y, launch.grid.z);
    parameters.blockDim = dim3(static_cast<unsigned>(launch.threads));
    parameters.sharedMemBytes = static_cast<unsigned>(launch.shared_bytes);
    parameters.kernelParams = list.addresses(i);
    if (cudaGraphExecKernelNodeSetParams(executable_, nodes_[i], &parameters) == cudaSuccess) {
        return true;
    }
    cudaGetLastError();
    return false;
}

}  // namespace lk::cuda
