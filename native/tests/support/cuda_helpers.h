// Shared by the CUDA tests: the device, rows on it, and comparison of its attention with the CPU's.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>

#include "backend/cpu/cpu_backend.h"
#include "kv/state/state.h"
#include "model/model.h"
#include "support/attention_oracle.h"
#include "support/gpu.h"
#include "support/model_helpers.h"
#include "support/weight_rows.h"

namespace lk {

using kv::Segment;
using kv::Side;
using test::kAllLengths;
using test::kAllTypes;
using test::Shape;
using test::Tokens;
using test::Whole;

// The demo model with its weights on the GPU. Throws if it cannot be loaded.
inline const Model& gpu_model() {
    static const std::shared_ptr<const Model> model = Model::load(test::demo_model_path(), true, -1, nullptr);
    return *model;
}

class Cuda : public testing::Test {
protected:
    void SetUp() override {
        LK_NEED_GPU();
        device_ = gpu_model().device.get();
        backend_ = device_->make_backend(false);
        invariant_backend_ = device_->make_backend(true);
    }

    Buffer<float> upload(const std::vector<float>& x) {
        Buffer<float> buffer(device_->memory(), x.size());
        device_->memory().write(buffer.data(), x.data(), buffer.bytes());
        return buffer;
    }

    // Begins a pass and stages tokens [begin, end) of one sequence, starting at row 0.
    void stage(kv::Cache& cache, const Segment& segment, const Tokens& tokens, int begin, int end) {
        for (int layer = 0; layer < cache.config().n_layer; ++layer) {
            const auto rows = [&](const std::vector<float>& all) {
                return upload({all.begin() + static_cast<ptrdiff_t>(begin) * tokens.width,
                               all.begin() + static_cast<ptrdiff_t>(end) * tokens.width});
            };
            Buffer<float> k = rows(tokens.k[layer]);
            const Buffer<float> v = rows(tokens.v[layer]);
            if (layer == 0) {
                pass_ = backend_->begin(cache, {&segment, 1}, nullptr);
            }
            backend_->stage(
                {.cache = &cache, .layer = layer, .n = end - begin, .k = k.data(), .v = v.data(), .pass = pass_.get()});
            backend_->finish();
        }
    }

    void append(kv::Cache& cache, int seq, const Tokens& tokens, int begin, int end) {
        const Segment segment{seq, 0, end - begin};
        cache.reserve({&segment, 1});
        stage(cache, segment, tokens, begin, end);
        backend_->stage_pages(*pass_, cache.layers());
        backend_->commit(*pass_);
    }

    static std::vector<uint8_t> state(kv::Cache& cache, int seq = 0) {
        std::vector<uint8_t> bytes(kv::state_size(Whole(cache), seq));
        kv::save_state(Whole(cache), seq, {}, bytes);
        return bytes;
    }

    // A pass of n_rows rows over n cached tokens.
    struct AttentionCase {
        Shape shape;
        int n_head;
        int n;
        int n_rows;
        int window;
        // Computed on the host.
        Tokens tokens{shape, n + n_rows, static_cast<uint32_t>(31 * n + n_rows), 1};
        std::vector<float> q = queries(n_rows, n_head, shape.head_size);
        std::vector<uint8_t> cached = {};
        test::Expected expected = {};

        Segment segment() const { return {0, 0, n_rows}; }

        void prepare() {
            kv::Cache cpu(shape.config());
            if (n > 0) {
                test::append(cpu, 0, tokens, 0, n);
                cached = state(cpu);
            }
            const Segment one = segment();
            test::stage_call(cpu, {&one, 1}, tokens, n, n + n_rows);
            expected = test::expected_attention(cpu, {&one, 1}, q, n_head, 1 / std::sqrt(shape.head_size), window);
        }
    };

    // Largest attention error of the GPU.
    double attention_error(const AttentionCase& c) {
        kv::Cache gpu(c.shape.config(), device_->memory());
        if (c.n > 0) {
            kv::load_state(Whole(gpu), 0, {}, c.cached);
        }
        const Segment segment = c.segment();
        gpu.reserve({&segment, 1});
        stage(gpu, segment, c.tokens, c.n, c.n + c.n_rows);
        backend_->stage_pages(*pass_, gpu.layers());
        const std::vector<float> actual = attend(gpu, {&segment, 1}, c.q, c.n_head, c.window);
        double worst = 0;
        for (size_t i = 0; i < actual.size(); ++i) {
            const double error = std::fabs(actual[i] - c.expected.out[i]) / c.expected.rms[i / c.shape.head_size];
            worst = test::worse(worst, error);
        }
        return worst;
    }

    static std::vector<float> queries(int n, int n_head, int d) {
        std::mt19937 random(5);
        std::normal_distribution<float> normal;
        std::vector<float> q(static_cast<size_t>(n) * n_head * d);
        for (float& x : q) {
            x = 0.5f * normal(random);
        }
        return q;
    }

    std::vector<float> attend(kv::Cache& gpu, std::span<const Segment> segments, const std::vector<float>& q,
                              int n_head, int window) {
        const int d = gpu.config().head_size;
        const float scale = 1.0f / std::sqrt(static_cast<float>(d));
        const Buffer<float> device_q = upload(q);
        Buffer<float> device_out = upload(std::vector<float>(q.size(), std::nanf("")));
        backend_->attention({&gpu, segments, device_q.data(), device_out.data(), 0, n_head, scale, test::rotation(d),
                             window, pass_.get()});
        backend_->finish();
        std::vector<float> out(q.size());
        device_->memory().read(out.data(), device_out.data(), device_out.bytes());
        return out;
    }

    // Largest difference from the CPU's attention, relative to the magnitude of the outputs. rotation: the device's.
    double difference(const kv::Cache& cpu, kv::Cache& gpu, const Segment& segment, int n_head,
                      const kv::Rotation& rotation) {
        const int d = cpu.config().head_size;
        const std::vector<float> q = queries(segment.n_rows, n_head, d);
        const float scale = 1.0f / std::sqrt(static_cast<float>(d));
        std::vector<float> expected(q.size());
        make_cpu_backend(2)->attention({&cpu, {&segment, 1}, q.data(), expected.data(), 0, n_head, scale, rotation, 0});
        const std::vector<float> actual = attend(gpu, {&segment, 1}, q, n_head, 0);
        double square = 0;
        for (const float x : expected) {
            square += static_cast<double>(x) * x / static_cast<double>(expected.size());
        }
        double worst = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
            const double error = std::fabs(actual[i] - expected[i]) / std::sqrt(square);
            worst = test::worse(worst, error);
        }
        return worst;
    }

    Device* device_ = nullptr;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Backend> invariant_backend_;  // batch-invariant
    std::unique_ptr<Pass> pass_;                  // begun by the last stage
};

// Single operations.
class CudaOperations : public Cuda {
protected:
    std::vector<float> download(const Buffer<float>& buffer) {
        std::vector<float> out(buffer.size());
        device_->memory().read(out.data(), buffer.data(), buffer.bytes());
        return out;
    }

    std::vector<float> random_floats(size_t n) {
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        for (float& v : x) {
            v = normal(random_);
        }
        return x;
    }

    // Random weights. They are kept, because the device finds weights by their host address.
    Tensor random_tensor(WeightType type, int64_t n_rows, int64_t n_cols) {
        static std::deque<std::vector<uint8_t>> kept;
        kept.push_back(test::draw_weights(type, n_rows * n_cols, random_));
        device_->upload(kept.back().data(), kept.back().size());
        return {type, kept.back().data(), n_cols, n_rows, kept.back().size() / n_rows};
    }

    const float* kept_floats(size_t n) {
        static std::deque<std::vector<float>> kept;
        kept.push_back(random_floats(n));
        device_->upload(kept.back().data(), n * sizeof(float));
        return kept.back().data();
    }

    static std::vector<float> floats_of(const Tensor& w) {
        std::vector<float> out(w.n_rows * w.n_cols);
        for (int64_t i = 0; i < w.n_rows; ++i) {
            dequantize_row(w.type, w.data + i * w.row_bytes, out.data() + i * w.n_cols, w.n_cols);
        }
        return out;
    }

    // Largest error of y[n, n_out] = x[n, n_in] W^T + before, relative to |row of W| |row of x|.
    static double product_error(const Tensor& w, const std::vector<float>& x, int n, const std::vector<float>& before,
                                const std::vector<float>& y) {
        const std::vector<float> weights = floats_of(w);
        std::vector<double> worst(w.n_rows);
        test::team().parallel_for(static_cast<int>(w.n_rows), [&](int j, int) {
            for (int64_t i = 0; i < n; ++i) {
                double sum = before.empty() ? 0 : before[i * w.n_rows + j];
                double of_w = 0;
                double of_x = 0;
                for (int64_t k = 0; k < w.n_cols; ++k) {
                    const double a = weights[j * w.n_cols + k];
                    const double b = x[i * w.n_cols + k];
                    sum += a * b;
                    of_w += a * a;
                    of_x += b * b;
                }
                const double error = std::fabs(y[i * w.n_rows + j] - sum) / std::sqrt(of_w * of_x);
                worst[j] = test::worse(worst[j], error);
            }
        });
        double all = 0;
        for (const double error : worst) {
            all = test::worse(all, error);
        }
        return all;
    }

    static double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
        double worst = 0;
        for (size_t i = 0; i < a.size(); ++i) {
            const double error = std::fabs(static_cast<double>(a[i]) - b[i]) / (1 + std::fabs(b[i]));
            worst = test::worse(worst, error);
        }
        return worst;
    }

    std::mt19937 random_{7};
    std::unique_ptr<Backend> cpu_ = make_cpu_backend(2);
};

}  // namespace lk
