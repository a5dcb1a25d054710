// Times GEMV and GEMM by weight type and number of batch rows, and memcpy in the same run.
//   llama-kivi-bench-products [--batch-invariant] MODEL.gguf [ROWS COLUMNS [TOKENS...]]
// The model only opens the device. ROWS and COLUMNS: of the matrices, 4096 by default. TOKENS: only these numbers.
// --batch-invariant: times the batch-invariant kernels too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "device_bench.h"
#include "quant/quantize.h"

namespace {

using namespace lk;

constexpr size_t kBytes = size_t{512} << 20;  // all weights together; exceeds the GPU's caches
constexpr int kMostTokens = 4096;

struct Shape {
    int rows = 4096;
    int columns = 4096;
};

struct Options {
    Shape shape;
    std::vector<int> tokens = {1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 512};
    bool invariant = false;
};

// Matrices of kBytes in total.
std::vector<Tensor> make_weights(Device& device, WeightType type, const Shape& shape,
                                 std::vector<std::vector<uint8_t>>& kept) {
    const WeightTypeTraits& traits = *weight_type_traits(type);
    const size_t row_bytes = shape.columns / traits.block_elements * traits.block_bytes;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> row(shape.columns);
    std::vector<uint8_t> one(row_bytes * shape.rows);
    for (int i = 0; i < 64; ++i) {
        for (float& x : row) {
            x = normal(random);
        }
        quantize_row(type, row.data(), shape.columns, &one[i * row_bytes]);
    }
    for (int i = 64; i < shape.rows; ++i) {
        std::copy_n(&one[i % 64 * row_bytes], row_bytes, &one[i * row_bytes]);
    }
    std::vector<Tensor> tensors;
    for (size_t bytes = 0; bytes < kBytes; bytes += one.size()) {
        kept.push_back(one);
        device.upload(kept.back().data(), one.size());
        tensors.push_back({type, kept.back().data(), shape.columns, shape.rows, row_bytes});
    }
    return tensors;
}

// Prints the times of a weight type. kept: see make_weights; the device finds weights by their host address.
void time_type(Device& device, WeightType type, const Options& options, Backend& backend, Backend* invariant_backend,
               double copy, std::vector<std::vector<uint8_t>>& kept) {
    const Shape& shape = options.shape;
    const size_t most = *std::max_element(options.tokens.begin(), options.tokens.end());
    const std::vector<Tensor> weights = make_weights(device, type, shape, kept);
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> input(most * shape.columns);
    for (float& x : input) {
        x = normal(random);
    }
    Buffer<float> x(device.memory(), input.size());
    Buffer<float> y(device.memory(), most * shape.rows);
    x.memory().write(x.data(), input.data(), x.bytes());
    for (const int n : options.tokens) {
        // Seconds per matrix.
        const auto time = [&](Backend& of) {
            const double seconds = bench::median_seconds(of, [&] {
                for (const Tensor& w : weights) {
                    const Product product[] = {{&w, y.data()}};
                    of.matmul(Rows::plain(x.data()), n, product);
                }
            });
            return seconds / static_cast<double>(weights.size());
        };
        const double each = time(backend);
        const double bytes = static_cast<double>(weights[0].row_bytes) * shape.rows;
        const double tera_operations = 2e-12 * shape.rows * shape.columns * n;
        std::printf("| %-5s | %3d | %7.2f | %5.0f | %3.0f%% | %5.1f |", weight_type_traits(type)->name, n, each * 1e6,
                    bytes / each / 1e9, 100 * bytes / each / copy, tera_operations / each);
        if (invariant_backend != nullptr) {
            const double in_order = time(*invariant_backend);
            std::printf(" %7.2f | %5.1f | %4.2f |", in_order * 1e6, tera_operations / in_order, in_order / each);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    options.invariant = argc > 1 && std::strcmp(argv[1], "--batch-invariant") == 0;
    if (options.invariant) {
        std::rotate(argv + 1, argv + 2, argv + argc);
        --argc;
    }
    Shape& shape = options.shape;
    if (argc > 3) {
        shape = {std::atoi(argv[2]), std::atoi(argv[3])};
        if (shape.rows < 64 || shape.columns < 256 || shape.columns % 256 != 0) {
            std::fprintf(stderr, "%s: ROWS must be at least 64, and COLUMNS a multiple of 256\n", argv[0]);
            return 2;
        }
    }
    if (argc > 4) {
        options.tokens.clear();
        for (int i = 4; i < argc; ++i) {
            options.tokens.push_back(std::clamp(std::atoi(argv[i]), 1, kMostTokens));
        }
    }
    const char* const arguments = "[--batch-invariant] MODEL.gguf [ROWS COLUMNS [TOKENS...]]";
    return bench::run_on_device(argc, argv, arguments, [&](Device& device) {
        const auto backend = device.make_backend(false);
        const auto invariant_backend = options.invariant ? device.make_backend(true) : nullptr;
        const double copy = bench::copy_speed(device);
        std::printf("%s, memcpy %.0f GB/s; %d x %d\n\n", describe_device(0).name, copy / 1e9, shape.rows,
                    shape.columns);
        std::printf(
            "| weights | tokens | us | GB/s of weights | of memcpy | TFLOP/s |%s\n|---|---|---|---|---|---|%s\n",
            options.invariant ? " batch-invariant us | TFLOP/s | of the default time |" : "",
            options.invariant ? "---|---|---|" : "");
        std::vector<std::vector<uint8_t>> kept;
        for (const WeightType type : {WeightType::F16, WeightType::Q8_0, WeightType::Q4_0, WeightType::Q4_K,
                                      WeightType::Q5_K, WeightType::Q6_K}) {
            time_type(device, type, options, *backend, invariant_backend.get(), copy, kept);
        }
    });
}
