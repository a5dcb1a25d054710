// Times attention over a KV cache larger than the GPU's caches, and memcpy in the same run.
//   llama-kivi-bench-attention MODEL.gguf [GiB [TYPE]]     the model only opens the device; 0 GiB: prompts only; TYPE:
//                                                          only this cache type
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "device_bench.h"

namespace {

using namespace lk;
struct Case {
    const char* name;
    lk_cache_type type;
    int n_head;
    int n_head_kv;
    int n_seq;
    // Tokens of the shortest and the longest sequence; 0: as many as fill `gib`.
    int shortest = 0;
    int longest = 0;
    bool invariant = false;  // batch-invariant
    // Prompts: tokens of a sequence, and tokens that it has cached before.
    int n_rows = 2048;
    int n_cached = 8192;

    int length(int seq) const { return shortest + (longest - shortest) * seq / std::max(1, n_seq - 1); }
};

constexpr int kChunk = 2048;  // most tokens of a pass
const char* only_type = nullptr;

// Decode: one query row per sequence over a cache of `gib`. Prefill (gib 0): n_rows tokens of every sequence.
void measure(Device& device, const Case& c, double gib, double copy) {
    if (only_type != nullptr && std::strcmp(only_type, lk_cache_type_name(c.type)) != 0) {
        return;
    }
    constexpr int d = 128;
    const int width = c.n_head_kv * d;
    kv::CacheConfig config;
    config.n_layer = 1;
    config.n_head_kv = c.n_head_kv;
    config.head_size = d;
    config.n_ctx = 1 << 30;
    config.n_seq_max = c.n_seq;
    config.n_ubatch = kChunk;
    const int32_t residual = kv::is_kivi(c.type) ? 128 : 0;
    config.params = {c.type, c.type, 0, residual, -1, 0, LK_ROWS_OWN, 0, 0};
    kv::Cache cache(config, device.memory());
    const double bytes_per_token = (cache.spec(kv::Side::keys).format.bits_per_element() +
                                    cache.spec(kv::Side::values).format.bits_per_element()) *
                                   width / 8;
    const bool prompt = gib == 0;
    const bool ragged = c.longest > 0;
    const int n_tokens = ragged ? c.longest
                         : prompt
                             ? c.n_cached
                             : static_cast<int>(gib * 0x1p30 / bytes_per_token / c.n_seq) / kChunk * kChunk + kChunk;
    const int n_rows = prompt ? c.n_rows : 1;
    const auto backend = device.make_backend(c.invariant);
    Memory& memory = device.memory();
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<size_t>(kChunk) * width);
    for (float& x : rows) {
        x = normal(random);
    }
    Buffer<float> k(memory, rows.size());
    memory.write(k.data(), rows.data(), k.bytes());
    for (int seq = 0; seq < c.n_seq; ++seq) {
        const int length = ragged ? c.length(seq) : n_tokens;
        for (int at = 0; at < length; at += kChunk) {
            const kv::Segment segment{seq, 0, std::min(kChunk, length - at)};
            cache.reserve({&segment, 1});
            const std::unique_ptr<Pass> pass = backend->begin(cache, {&segment, 1}, nullptr);
            backend->stage({.cache = &cache, .n = segment.n_rows, .k = k.data(), .v = k.data(), .pass = pass.get()});
            backend->finish();
            backend->stage_pages(*pass, cache.layers());
            backend->commit(*pass);
        }
    }

    std::vector<kv::Segment> segments;
    for (int seq = 0; seq < c.n_seq; ++seq) {
        segments.push_back({seq, seq * n_rows, n_rows});
    }
    std::vector<float> queries(static_cast<size_t>(c.n_seq) * n_rows * c.n_head * d);
    for (float& x : queries) {
        x = normal(random);
    }
    Buffer<float> q(memory, queries.size());
    Buffer<float> out(memory, q.size());
    memory.write(q.data(), queries.data(), q.bytes());
    const std::vector<float> frequency(d / 2, 1.0f);
    cache.reserve(segments);
    const std::unique_ptr<Pass> pass = backend->begin(cache, segments, nullptr);
    backend->stage({.cache = &cache, .n = c.n_seq * n_rows, .k = k.data(), .v = k.data(), .pass = pass.get()});
    backend->stage_pages(*pass, cache.layers());
    const double time = bench::median_seconds(
        *backend,
        [&] {
            backend->attention({&cache,
                                segments,
                                q.data(),
                                out.data(),
                                0,
                                c.n_head,
                                1 / std::sqrt(float{d}),
                                {frequency, RopePairs::adjacent},
                                0,
                                pass.get()});
        },
        10);
    if (prompt) {
        const double products =
            4.0 * d * c.n_head * c.n_seq * (static_cast<double>(n_rows) * n_tokens + 0.5 * n_rows * (n_rows + 1));
        std::printf("| %-11s | %-6s | %2d/%-2d | %8.1f | %4.0f |\n", lk_cache_type_name(c.type), c.name, c.n_head,
                    c.n_head_kv, time * 1e6, products / time / 1e12);
        std::fflush(stdout);
        return;
    }
    const lk_cache_usage usage = cache.usage();
    const double bytes = static_cast<double>(usage.quantized_bytes + usage.exact_bytes);
    std::printf("| %-11s | %-6s | %2d/%-2d | %4d | %6d | %6.2f | %8.1f | %6.0f | %3.0f%% |\n",
                lk_cache_type_name(c.type), c.name, c.n_head, c.n_head_kv, c.n_seq, n_tokens, bytes / 0x1p30,
                time * 1e6, bytes / time / 1e9, 100 * bytes / time / copy);
    std::fflush(stdout);
}

void measure_prompts(Device& device) {
    constexpr const char* kHeader = "| cache | heads | q/kv | us | TFLOP/s |\n|---|---|---|---|---|\n";
    std::printf("\n%d prompt tokens over 8192 cached tokens\n\n%s", kChunk, kHeader);
    for (const lk_cache_type type :
         {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_KIVI4, LK_CACHE_KIVI2_PAPER, LK_CACHE_Q8_0}) {
        measure(device, {"MHA", type, 32, 32, 1}, 0, 0);
        measure(device, {"GQA 4", type, 32, 8, 1}, 0, 0);
    }
    measure(device, {"GQA 4", LK_CACHE_Q5_1, 32, 8, 1}, 0, 0);
    std::printf("\n12 prompts of 160 tokens, default and batch-invariant\n\n%s", kHeader);
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
        for (const bool invariant : {false, true}) {
            measure(device, {invariant ? "MHA, i" : "MHA", type, 32, 32, 12, 0, 0, invariant, 160, 0}, 0, 0);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    return bench::run_on_device(argc, argv, "MODEL.gguf [GiB [TYPE]]", [&](Device& device) {
        const double gib = argc > 2 ? std::atof(argv[2]) : 2;
        only_type = argc > 3 ? argv[3] : nullptr;
        if (gib <= 0) {
            measure_prompts(device);
            return;
        }
        const double copy = bench::copy_speed(device);
        std::printf("%s, memcpy %.0f GB/s\n\n", describe_device(0).name, copy / 1e9);
        std::printf(
            "| cache | heads | q/kv | seqs | tokens | GiB | us | GB/s | of memcpy "
            "|\n|---|---|---|---|---|---|---|---|---|\n");
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_KIVI4,
                                         LK_CACHE_KIVI2_PAPER, LK_CACHE_Q8_0, LK_CACHE_Q4_0}) {
            measure(device, {"MHA", type, 32, 32, 16}, gib, copy);
            measure(device, {"GQA 4", type, 32, 8, 32}, gib, copy);
        }
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
            measure(device, {"GQA 8", type, 64, 8, 32}, gib, copy);
            measure(device, {"MHA", type, 32, 32, 256}, gib, copy);
        }
        for (const lk_cache_type type : {LK_CACHE_BF16, LK_CACHE_Q5_1, LK_CACHE_IQ4_NL}) {
            measure(device, {"GQA 4", type, 32, 8, 32}, gib, copy);
        }
        std::printf("\nsequences of 8192 tokens\n\n");
        measure(device, {"MHA", LK_CACHE_KIVI2, 32, 32, 8, 8192, 8192}, gib, copy);
        measure(device, {"GQA 4", LK_CACHE_KIVI2, 32, 8, 32, 8192, 8192}, gib, copy);
        std::printf("\nshort sequences, 160 to 500 tokens\n\n");
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
            for (const int n_seq : {64, 1100, 1600}) {
                measure(device, {"MHA", type, 32, 32, n_seq, 160, 500}, gib, copy);
            }
        }
        std::printf("\nsequences of 208 tokens, then of 160 to 900, default and batch-invariant\n\n");
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI3}) {
            for (const auto& [n_seq, shortest, longest] :
                 {std::array{1, 208, 208}, {64, 208, 208}, {256, 208, 208}, {256, 160, 900}}) {
                for (const bool invariant : {false, true}) {
                    const char* const name = invariant ? "MHA, i" : "MHA";
                    measure(device, {name, type, 32, 32, n_seq, shortest, longest, invariant}, gib, copy);
                }
            }
        }
        measure_prompts(device);
    });
}
