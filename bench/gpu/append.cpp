// Times stage_pages and commit of 12 sequences on the Llama-2-7B shape: first flush, decode step that flushes, decode
// step that does not.
//   llama-kivi-bench-append MODEL.gguf     the model only opens the device
#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "device_bench.h"

namespace {

using namespace lk;
using kv::Segment;

constexpr int kSequences = 12;
constexpr int kLayers = 32;
constexpr int kHeads = 32;
constexpr int kHeadSize = 128;
constexpr int kResidual = 128;

class AppendBench {
public:
    AppendBench(Device& device, const lk_cache_params& params, int most_rows)
        : cache_(make_config(params, most_rows), device.memory()),
          backend_(device.make_backend(false)),
          rows_(device.memory(), static_cast<size_t>(kSequences) * most_rows * kHeads * kHeadSize) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> rows(rows_.size());
        for (float& x : rows) {
            x = normal(random);
        }
        device.memory().write(rows_.data(), rows.data(), rows_.bytes());
    }

    // Median of the seconds that n rows of every sequence take after `cached` tokens.
    double measure(int cached, int n) {
        constexpr int kTimes = 9;
        std::vector<double> times;
        for (int i = 0; i < kTimes + 2; ++i) {
            for (int seq = 0; seq < kSequences; ++seq) {
                cache_.truncate(seq, 0);
            }
            if (cached > 0) {
                append(cached);
            }
            const double time = append(n);
            if (i >= 2) {
                times.push_back(time);
            }
        }
        std::sort(times.begin(), times.end());
        return times[kTimes / 2];
    }

private:
    static kv::CacheConfig make_config(const lk_cache_params& params, int most_rows) {
        kv::CacheConfig config;
        config.n_layer = kLayers;
        config.n_head_kv = kHeads;
        config.head_size = kHeadSize;
        config.n_ctx = 1 << 20;
        config.n_seq_max = kSequences;
        config.n_ubatch = kSequences * most_rows;
        config.params = params;
        return config;
    }

    // Appends n rows to every sequence; returns the seconds of stage_pages and commit.
    double append(int n) {
        std::vector<Segment> segments;
        for (int seq = 0; seq < kSequences; ++seq) {
            segments.push_back({seq, seq * n, n});
        }
        cache_.reserve(segments);
        const std::unique_ptr<Pass> pass = backend_->begin(cache_, segments, nullptr);
        for (int layer = 0; layer < kLayers; ++layer) {
            backend_->stage({.cache = &cache_,
                             .layer = layer,
                             .n = kSequences * n,
                             .k = rows_.data(),
                             .v = rows_.data(),
                             .pass = pass.get()});
        }
        backend_->finish();
        const auto start = bench::Clock::now();
        backend_->stage_pages(*pass, cache_.layers());
        backend_->commit(*pass);
        backend_->finish();
        return bench::seconds_since(start);
    }

    kv::Cache cache_;
    std::unique_ptr<Backend> backend_;
    Buffer<float> rows_;  // [row, head, D], keys and values
};

}  // namespace

int main(int argc, char** argv) {
    return bench::run_on_device(argc, argv, "MODEL.gguf", [&](Device& device) {
        std::printf("| cache | first flush, us | decode with a flush, us | decode without, us |\n|---|---|---|---|\n");
        for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI4}) {
            const int group = kv::own_recipe(type).group;
            const int trigger = kResidual + group;
            AppendBench bench(device, {type, type, 0, kResidual, -1, 0, LK_ROWS_OWN, 0, 0}, trigger + group);
            const double first = bench.measure(0, trigger);
            const double flush = bench.measure(trigger + group - 1, 1);
            const double plain = bench.measure(trigger + group / 2, 1);
            std::printf("| %s | %.1f | %.1f | %.1f |\n", lk_cache_type_name(type), first * 1e6, flush * 1e6,
                        plain * 1e6);
            std::fflush(stdout);
        }
    });
}
