// Times the kernels between the matmuls of a layer: RMS norm, SwiGLU and conversion to half as inputs of matmuls, and
// RoPE with staging.
//   llama-kivi-bench-rows MODEL.gguf [ROWS]     the model only opens the device; ROWS: 1, 64 or 2048 (default: all)
// A call of few rows takes longer on the host than on the device. A profiler has the time of each kernel: it is alone,
// because every call is followed by a wait for the device.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "device_bench.h"

namespace {

using namespace lk;

constexpr int kHeads = 32;
constexpr int kHeadSize = 128;
constexpr int kEmbd = kHeads * kHeadSize;
constexpr int kProductRows = 64;  // rows of the matrix that makes the backend convert its input

struct Case {
    int n;  // rows of a pass
    int n_seq;
    int n_head_kv;
    int n_ff;
};

class Bench {
public:
    Bench(Device& device, const Case& c)
        : device_(device),
          c_(c),
          backend_(device.make_backend(false)),
          embd_weight_(weight(kEmbd)),
          ff_weight_(weight(c.n_ff)),
          y_(device.memory(), static_cast<size_t>(c.n) * kProductRows) {
        norm_.assign(kEmbd, 1.0f);
        device.upload(norm_.data(), norm_.size() * sizeof(float));
    }

    void run() {
        const Buffer<float> x = random_rows(kEmbd);
        const Buffer<float> gate = random_rows(c_.n_ff);
        const Buffer<float> up = random_rows(c_.n_ff);
        const double rows = c_.n;
        print("rms_norm to halves", rows * kEmbd * 6 + kEmbd * 4.0,
              [&] { matmul(Rows::rms_norm(x.data(), norm_.data(), 1e-5f), embd_weight_); });
        print("floats to halves", rows * kEmbd * 6, [&] { matmul(Rows::plain(x.data()), embd_weight_); });
        print("swiglu to halves", rows * c_.n_ff * 10,
              [&] { matmul(Rows::swiglu(gate.data(), up.data()), ff_weight_); });
        for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
            stage(type, RopePairs::adjacent);
            stage(type, RopePairs::halves);
        }
    }

private:
    struct Weight {
        std::vector<uint8_t> data;  // the device finds it by its host address
        Tensor tensor;
    };

    Weight weight(int n_cols) {
        const size_t row_bytes = static_cast<size_t>(n_cols) * 2;
        Weight w{std::vector<uint8_t>(row_bytes * kProductRows), {}};
        device_.upload(w.data.data(), w.data.size());
        w.tensor = {WeightType::F16, w.data.data(), n_cols, kProductRows, row_bytes};
        return w;
    }

    Buffer<float> random_rows(int width) {
        std::mt19937 random(2);
        std::normal_distribution<float> normal;
        std::vector<float> rows(static_cast<size_t>(c_.n) * width);
        for (float& x : rows) {
            x = normal(random);
        }
        return upload(rows);
    }

    Buffer<float> upload(const std::vector<float>& rows) {
        Buffer<float> buffer(device_.memory(), rows.size());
        device_.memory().write(buffer.data(), rows.data(), buffer.bytes());
        return buffer;
    }

    void matmul(const Rows& rows, const Weight& w) {
        const Product product[] = {{&w.tensor, y_.data()}};
        backend_->matmul(rows, c_.n, product);
    }

    void stage(lk_cache_type type, RopePairs pairs) {
        kv::CacheConfig config;
        config.n_layer = 1;
        config.n_head_kv = c_.n_head_kv;
        config.head_size = kHeadSize;
        config.n_ctx = 1 << 20;
        config.n_seq_max = c_.n_seq;
        config.n_ubatch = c_.n;
        config.params = {type, type, 0, 128, -1, 0, LK_ROWS_OWN, 0, 0};
        kv::Cache cache(config, device_.memory());
        std::vector<kv::Segment> segments;
        const int n_rows = c_.n / c_.n_seq;
        for (int seq = 0; seq < c_.n_seq; ++seq) {
            segments.push_back({seq, seq * n_rows, n_rows});
        }
        cache.reserve(segments);
        Buffer<float> q = random_rows(kEmbd);
        Buffer<float> k = random_rows(c_.n_head_kv * kHeadSize);
        const Buffer<float> v = random_rows(c_.n_head_kv * kHeadSize);
        std::vector<float> angles(static_cast<size_t>(c_.n) * kHeadSize);
        for (size_t i = 0; i < angles.size(); i += 2) {
            angles[i] = 1;  // cosine; rows are rotated in place, again and again
        }
        const Buffer<float> cos_sin = upload(angles);
        const bool blocks = cache.spec(kv::Side::keys).ring_in_blocks();
        const double bytes = kHeadSize * static_cast<double>(c_.n) *
                             (kHeads * 8 + c_.n_head_kv * (8 + 4 + 2 * 2 + (blocks ? 2 * 34.0 / 32 : 0)));
        char name[64];
        std::snprintf(name, sizeof name, "RoPE (%s) and staging, %s",
                      pairs == RopePairs::halves ? "halves" : "adjacent", lk_cache_type_name(type));
        std::unique_ptr<Pass> pass = backend_->begin(cache, segments, nullptr);
        print(name, bytes, [&] {
            backend_->stage({.cache = &cache,
                             .layer = 0,
                             .n = c_.n,
                             .n_head = kHeads,
                             .n_rot = kHeadSize,
                             .pairs = pairs,
                             .cos_sin = cos_sin.data(),
                             .q = q.data(),
                             .k = k.data(),
                             .v = v.data(),
                             .pass = pass.get()});
        });
    }

    template <class Work>
    void print(const char* name, double bytes, const Work& work) {
        const double alone = bench::median_seconds(*backend_, work);
        const double queued = bench::median_seconds(*backend_, work, 50);
        std::printf("| %d | %s | %.2f | %.1f | %.1f | %.1f |\n", c_.n, name, bytes / 1e6, bytes / 4.2e6, queued * 1e6,
                    alone * 1e6);
        std::fflush(stdout);
    }

    Device& device_;
    Case c_;
    std::unique_ptr<Backend> backend_;
    Weight embd_weight_;
    Weight ff_weight_;
    std::vector<float> norm_;
    Buffer<float> y_;
};

}  // namespace

int main(int argc, char** argv) {
    return bench::run_on_device(argc, argv, "MODEL.gguf [ROWS]", [&](Device& device) {
        std::printf(
            "%s, memcpy %.0f GB/s. Matmuls include the product with a matrix of %d rows.\n\n"
            "| rows | operation | MB | us at 4.2 TB/s | us, queued | us, with a wait "
            "|\n|---|---|---:|---:|---:|---:|\n",
            describe_device(0).name, bench::copy_speed(device) / 1e9, kProductRows);
        // Decode steps of the Llama-2-7B shape; a prompt's pass of the Llama-3-8B shape.
        for (const Case& c : {Case{1, 1, 32, 11008}, Case{64, 64, 32, 11008}, Case{2048, 1, 8, 14336}}) {
            if (argc < 3 || std::atoi(argv[2]) == c.n) {
                Bench(device, c).run();
            }
        }
    });
}
