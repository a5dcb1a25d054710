#include "backend/cuda/device/stream.h"

#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"

namespace lk::cuda {

namespace {

constexpr size_t kFirstLaunches = 32;

// Whether kernels may start before the preceding one ends: compute capability 9.0 or later.
bool starts_early() {
    static const bool early = [] {
        int device = 0;
        int major = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        return major >= 9;
    }();
    return early;
}

// Whether a graph keeps the early start of its kernels: from CUDA 12.3 on, in the runtime and in the driver. Without
// it, launches one by one are better.
bool graphs_start_early() {
    constexpr int kFirst = 12030;
    int driver = 0;
    cudaDriverGetVersion(&driver);
    return CUDART_VERSION >= kFirst && driver >= kFirst;
}

cudaError_t queue_on(cudaStream_t stream, const Launch& launch, void** arguments) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(launch.grid.x, launch.grid.y, launch.grid.z);
    config.blockDim = dim3(static_cast<unsigned>(launch.threads));
    config.dynamicSmemBytes = launch.shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = starts_early() ? 1 : 0;
    return cudaLaunchKernelExC(&config, launch.function, arguments);
}

}  // namespace

cudaError_t queue_launch(const KernelLaunch& launch, Stream& stream) {
    return stream.run(launch);
}

Stream::Streams::Streams() {
    LK_CUDA(cudaStreamCreate(&main));
    const cudaError_t status = cudaStreamCreateWithFlags(&capture, cudaStreamNonBlocking);
    if (status != cudaSuccess) {
        cudaStreamDestroy(main);  // the destructor does not run
    }
    LK_CUDA(status);
}

Stream::Streams::~Streams() {
    cudaStreamDestroy(capture);
    cudaStreamDestroy(main);
}

Stream::Setting Stream::read_setting() {
    const char* const text = std::getenv("LLAMA_KIVI_CUDA_GRAPHS");
    Setting setting{kFirstLaunches, false};
    if (text != nullptr) {
        const std::string_view value = text;
        setting.check = value == "check";
        const auto [end, error] = std::from_chars(value.begin(), value.end(), setting.first_launches);
        LK_CHECK(
            setting.check || (error == std::errc() && end == value.end()), LK_INVALID_ARGUMENT,
            "LLAMA_KIVI_CUDA_GRAPHS is '%s'; set it to 0, the number of launches in a step's first graph, or check",
            text);
    }
    if (starts_early() && !graphs_start_early()) {
        setting.first_launches = 0;
    }
    return setting;
}

Stream::Stream(Memory& memory) : memory_(memory), blas_(memory, streams_.main), graphs_(read_setting()) {}

Stream::~Stream() {
    cudaStreamSynchronize(streams_.main);
    if (graphs_.check) {
        const GraphCounts& c = cache_.counts();
        std::fprintf(stderr,
                     "CUDA graphs: %" PRIu64 " queued by launch, %" PRIu64 " built, %" PRIu64 " unchanged, %" PRIu64
                     " updated (%" PRIu64 " launches)\n",
                     c.queued, c.built, c.unchanged, c.updated, c.launches);
    }
}

void Stream::record(int n_rows) {
    drop();
    recorded_.restart(n_rows);
    recorded_after_.restart(n_rows);
    n_rows_ = n_rows;
    part_ = 0;
    most_launches_ = graphs_.first_launches;
    recording_ = graphs_.first_launches > 0;
}

void Stream::drop() {
    recording_ = false;
}

void Stream::end() {
    if (recording_) {
        recording_ = false;
        run_graph();
        run_list(recorded_after_);
    }
}

cudaStream_t Stream::next() {
    if (recording_ && !(recorded_.empty() && recorded_after_.empty())) {
        end();
    }
    return streams_.main;
}

void Stream::run_graph() {
    if (recorded_.empty()) {
        return;
    }
    const auto make = [this](LaunchList& list) { return make_graph(list); };
    CudaGraph* const graph = graphs_.first_launches > 0 ? cache_.prepare(recorded_, make) : nullptr;
    if (graph == nullptr) {
        run_list(recorded_);
        return;
    }
    LK_CUDA(graph->launch(streams_.main));
}

void Stream::run_list(LaunchList& list) {
    for (size_t i = 0; i < list.size(); ++i) {
        if (list[i].function == nullptr) {
            blas_.multiply(gemm_of(list, i));
        } else {
            // finish reports the error of a launch.
            static_cast<void>(queue_on(streams_.main, list[i], list.addresses(i)));
        }
    }
}

std::unique_ptr<CudaGraph> Stream::make_graph(LaunchList& list) {
    cudaError_t reason = cudaErrorUnknown;
    std::unique_ptr<CudaGraph> graph;
    const auto queue_captured = [&](size_t i) {
        if (list[i].function == nullptr) {
            blas_.multiply(gemm_of(list, i));
            return cudaSuccess;
        }
        return queue_on(streams_.capture, list[i], list.addresses(i));
    };
    blas_.use(streams_.capture);
    try {
        graph = CudaGraph::capture(list, streams_.capture, queue_captured, reason);
    } catch (const Error&) {
        // cuBLAS refuses the capture.
        if (graphs_.check) {
            throw;
        }
    }
    blas_.use(streams_.main);
    if (graph == nullptr) {
        LK_CHECK(!graphs_.check, LK_DEVICE_ERROR, "the GPU's driver failed: %s (capture of %zu launches)",
                 cudaGetErrorString(reason), list.size());
        graphs_.first_launches = 0;  // launches one by one report their own errors
    }
    return graph;
}

Gemm Stream::gemm_of(const LaunchList& list, size_t i) {
    Gemm gemm;
    std::memcpy(&gemm, list.argument(i, 0).data(), sizeof(gemm));
    return gemm;
}

cudaError_t Stream::run(const KernelLaunch& k) {
    const Launch launch{k.kernel, {k.grid.x, k.grid.y, k.grid.z}, k.threads, k.shared_bytes};
    if (!recording_) {
        return queue_on(streams_.main, launch, k.arguments);
    }
    arguments_.clear();
    for (size_t i = 0; i < k.n_arguments; ++i) {
        arguments_.push_back({k.arguments[i], k.sizes[i]});
    }
    add(launch, arguments_);
    return cudaSuccess;
}

void Stream::add(const Launch& launch, std::span<const LaunchArgument> arguments) {
    if (after_graph_) {
        recorded_after_.add(launch, arguments);
        return;
    }
    recorded_.add(launch, arguments);
    if (recorded_.size() == most_launches_) {
        run_graph();
        recorded_.restart(n_rows_, ++part_);
        most_launches_ *= 2;
    }
}

void Stream::multiply(const Gemm& gemm) {
    if (!recording_) {
        blas_.multiply(gemm);
        return;
    }
    const LaunchArgument description{&gemm, sizeof(gemm)};
    add({nullptr, {}, 0, 0}, {&description, 1});
}

}  // namespace lk::cuda
