// Times decode and prompt passes over four layers of the Llama-2-7B shape, as by default and batch-invariant.
//   llama-kivi-bench-step MODEL.gguf     the model only opens the device
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "device_bench.h"
#include "quant/quantize.h"

namespace {

using namespace lk;

constexpr int kLayers = 4;
constexpr int kEmbd = 4096;
constexpr int kFf = 11008;
constexpr int kHeads = 32;
constexpr int kHeadSize = 128;
constexpr int kDepth = 512;     // cached tokens per sequence
constexpr int kMostRows = 512;  // rows of a pass

struct LayerWeights {
    Tensor q, k, v, o, gate, up, down;
};

class Weights {
public:
    Weights(Device& device, WeightType type) {
        std::mt19937 random(1);
        const auto make = [&](int n_rows, int n_cols) {
            const WeightTypeTraits& traits = *weight_type_traits(type);
            const size_t row_bytes = n_cols / traits.block_elements * traits.block_bytes;
            std::vector<uint8_t>& data = kept_.emplace_back(row_bytes * n_rows);
            std::normal_distribution<float> normal(0, 0.02f);
            std::vector<float> row(n_cols);
            for (int i = 0; i < n_rows; ++i) {
                if (i >= 16) {
                    std::copy_n(&data[i % 16 * row_bytes], row_bytes, &data[i * row_bytes]);
                    continue;
                }
                for (float& x : row) {
                    x = normal(random);
                }
                quantize_row(type, row.data(), n_cols, &data[i * row_bytes]);
            }
            device.upload(data.data(), data.size());
            return Tensor{type, data.data(), n_cols, n_rows, row_bytes};
        };
        for (int i = 0; i < kLayers; ++i) {
            layers.push_back({make(kEmbd, kEmbd), make(kEmbd, kEmbd), make(kEmbd, kEmbd), make(kEmbd, kEmbd),
                              make(kFf, kEmbd), make(kFf, kEmbd), make(kEmbd, kFf)});
        }
    }

    std::vector<LayerWeights> layers;

private:
    std::vector<std::vector<uint8_t>> kept_;  // the device finds weights by their host address
};

struct Case {
    lk_cache_type type;
    int n_seq;
    int depth;
    int n_rows;  // per sequence
};

double seconds_of(Device& device, const Weights& weights, const Case& c, bool invariant) {
    kv::CacheConfig config;
    config.n_layer = kLayers;
    config.n_head_kv = kHeads;
    config.head_size = kHeadSize;
    config.n_ctx = 1 << 24;
    config.n_seq_max = c.n_seq;
    config.n_ubatch = kMostRows;
    config.params = {c.type, c.type, 0, 128, -1, 0, LK_ROWS_OWN, 0, 0};
    kv::Cache cache(config, device.memory());
    const auto backend = device.make_backend(invariant);
    Memory& memory = device.memory();
    const auto random_rows = [&](int width) {
        std::mt19937 random(2);
        std::normal_distribution<float> normal;
        std::vector<float> rows(static_cast<size_t>(kMostRows) * width);
        for (float& x : rows) {
            x = normal(random);
        }
        Buffer<float> buffer(memory, rows.size());
        memory.write(buffer.data(), rows.data(), buffer.bytes());
        return buffer;
    };
    Buffer<float> x = random_rows(kEmbd);
    Buffer<float> q = random_rows(kEmbd);
    Buffer<float> k = random_rows(kEmbd);
    Buffer<float> v = random_rows(kEmbd);
    Buffer<float> out = random_rows(kEmbd);
    Buffer<float> gate = random_rows(kFf);
    Buffer<float> up = random_rows(kFf);
    const std::vector<float> frequency(kHeadSize / 2, 1.0f);
    const auto stage = [&](int layer, int n, Pass& pass) {
        backend->stage({.cache = &cache, .layer = layer, .n = n, .k = k.data(), .v = v.data(), .pass = &pass});
        backend->stage_pages(pass, {layer, layer + 1});
    };
    for (int seq = 0; seq < c.n_seq; ++seq) {
        for (int at = 0; at < c.depth; at += 128) {
            const kv::Segment segment{seq, 0, 128};
            cache.reserve({&segment, 1});
            const std::unique_ptr<Pass> pass = backend->begin(cache, {&segment, 1}, nullptr);
            for (int layer = 0; layer < kLayers; ++layer) {
                stage(layer, segment.n_rows, *pass);
            }
            backend->finish();
            backend->commit(*pass);
        }
    }
    std::vector<kv::Segment> segments;
    for (int seq = 0; seq < c.n_seq; ++seq) {
        segments.push_back({seq, seq * c.n_rows, c.n_rows});
    }
    cache.reserve(segments);
    const int n = c.n_seq * c.n_rows;
    std::unique_ptr<Pass> pass;
    return bench::median_seconds(*backend, [&] {
        pass = backend->begin(cache, segments, std::move(pass));
        for (int layer = 0; layer < kLayers; ++layer) {
            const LayerWeights& w = weights.layers[layer];
            const Product qkv[] = {{&w.q, q.data()}, {&w.k, k.data()}, {&w.v, v.data()}};
            backend->matmul(Rows::plain(x.data()), n, qkv);
            stage(layer, n, *pass);
            backend->attention({&cache,
                                segments,
                                q.data(),
                                out.data(),
                                layer,
                                kHeads,
                                0.088f,
                                {frequency, RopePairs::adjacent},
                                0,
                                pass.get()});
            const Product o[] = {{&w.o, q.data()}};
            backend->matmul(Rows::plain(out.data()), n, o);
            const Product gate_up[] = {{&w.gate, gate.data()}, {&w.up, up.data()}};
            backend->matmul(Rows::plain(x.data()), n, gate_up);
            const Product down[] = {{&w.down, q.data()}};
            backend->matmul(Rows::swiglu(gate.data(), up.data()), n, down);
        }
    });
}

}  // namespace

int main(int argc, char** argv) {
    return bench::run_on_device(argc, argv, "MODEL.gguf", [&](Device& device) {
        std::printf("%s, memcpy %.0f GB/s; four layers of the Llama-2-7B shape\n\n", describe_device(0).name,
                    bench::copy_speed(device) / 1e9);
        std::printf(
            "| weights | cache | sequences x rows over tokens | us | batch-invariant, us | price "
            "|\n|---|---|---|---:|---:|---:|\n");
        for (const WeightType type : {WeightType::F16, WeightType::Q4_K}) {
            const Weights weights(device, type);
            for (const lk_cache_type cache : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
                for (const Case& c : {Case{cache, 1, kDepth, 1}, Case{cache, 64, kDepth, 1},
                                      Case{cache, 256, kDepth, 1}, Case{cache, 1, kDepth, 512}}) {
                    const double plain = seconds_of(device, weights, c, false);
                    const double invariant = seconds_of(device, weights, c, true);
                    std::printf("| %s | %s | %d x %d over %d | %.0f | %.0f | %+.0f%% |\n",
                                weight_type_traits(type)->name, lk_cache_type_name(cache), c.n_seq, c.n_rows, c.depth,
                                plain * 1e6, invariant * 1e6, 100 * (invariant / plain - 1));
                    std::fflush(stdout);
                }
            }
        }
    });
}
