#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "base/thread_pool.h"

namespace lk {

namespace {

using cpu::Kernels;
using cpu::QuantizedRow;

constexpr int64_t kRowsPerTask = 32;    // weight rows: about 10 KB of weights, which stay in the first-level cache
constexpr int64_t kElementsPerTask = 1 << 14;

int resolve_threads(int n_threads) {
    return n_threads > 0 ? n_threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

class CpuBackend final : public Backend {
public:
    explicit CpuBackend(int n_threads)
        : kernels_(cpu::select_kernels()), pool_(resolve_threads(n_threads)), attention_(kernels_, pool_.size()) {}

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        for (int i = 0; i < n; ++i) {
            dequantize_row(table.type, table.data + tokens[i] * table.row_bytes, out + i * table.n_cols, table.n_cols);
        }
    }

    void rms_norm(const float* x, const float* weight, float eps, int n, int dim, float* out) override {
        for_rows(n, dim, [&](int i) { kernels_.rms_norm(x + int64_t{i} * dim, weight, eps, dim, out + int64_t{i} * dim); });
    }

    void matmul(const float* x, int n, std::span<const Product> products) override {
        const int n_in = static_cast<int>(products[0].w->n_cols);
        quantize(x, n, n_in);
        int64_t n_rows = 0;
        for (const Product& p : products) {
            n_rows += p.w->n_rows;
        }
        // Small enough pieces that threads finish together, large enough that handing them out costs nothing.
        const int64_t step = std::clamp<int64_t>(n_rows / (8 * pool_.size()), 8, kRowsPerTask);
        const auto pieces = [&](const Product& p) { return (p.w->n_rows + step - 1) / step; };
        int64_t n_tasks = 0;
        for (const Product& p : products) {
            n_tasks += pieces(p);
        }
        pool_.parallel_for(static_cast<int>(n_tasks), [&](int task, int) {
            const Product* p = products.data();
            int64_t piece = task;
            for (; piece >= pieces(*p); ++p) {
                piece -= pieces(*p);
            }
            const int64_t end = std::min(p->w->n_rows, (piece + 1) * step);
            kernels_.matmul(*p->w, piece * step, end, rows_.data(), n, p->y, p->w->n_rows);
        });
    }

    void rope(float* x, const float* cos_sin, int n, int n_head, int head_size, int n_rot, RopePairs pairs) override {
        for_rows(n, n_head * head_size, [&](int i) {
            const float* angles = cos_sin + static_cast<ptrdiff_t>(i) * n_rot;
            for (int h = 0; h < n_head; ++h) {
                float* head = x + (static_cast<ptrdiff_t>(i) * n_head + h) * head_size;
                for (int j = 0; j < n_rot / 2; ++j) {
                    float& a = pairs == RopePairs::adjacent ? head[2 * j] : head[j];
                    float& b = pairs == RopePairs::adjacent ? head[2 * j + 1] : head[j + n_rot / 2];
                    const float c = angles[2 * j];
                    const float s = angles[2 * j + 1];
                    const float rotated = a * c - b * s;
                    b = a * s + b * c;
                    a = rotated;
                }
            }
        });
    }

    void swiglu(float* gate, const float* up, int64_t n) override {
        for_elements(n, [&](int64_t from, int64_t count) { kernels_.swiglu(gate + from, up + from, count); });
    }

    void add(float* x, const float* y, int64_t n) override {
        for_elements(n, [&](int64_t from, int64_t count) { kernels_.add(x + from, y + from, count); });
    }

    void stage(kv::Cache& cache, int layer, int n, const float* k, const float* v) override {
        cache.stage(kv::Side::keys, layer, n, k, kernels_.half_row);
        cache.stage(kv::Side::values, layer, n, v, kernels_.half_row);
    }

    void attention(const AttentionArgs& args) override { attention_.run(args, pool_); }

    void commit(kv::Cache& cache, std::span<const kv::Segment> segments) override { cache.commit(segments, pool_); }

private:
    // body(row) for n rows of `width` elements; a few short rows are not worth waking threads for.
    template <class Body>
    void for_rows(int n, int64_t width, const Body& body) {
        if (n * width < kElementsPerTask) {
            for (int i = 0; i < n; ++i) {
                body(i);
            }
        } else {
            pool_.parallel_for(n, [&](int i, int) { body(i); });
        }
    }

    template <class Body>
    void for_elements(int64_t n, const Body& body) {
        const int n_tasks = static_cast<int>((n + kElementsPerTask - 1) / kElementsPerTask);
        pool_.parallel_for(n_tasks, [&](int i, int) {
            const int64_t from = i * kElementsPerTask;
            body(from, std::min(kElementsPerTask, n - from));
        });
    }

    // rows_[n] of x[n, n_in]. Only grows its buffers.
    void quantize(const float* x, int n, int n_in) {
        const size_t blocks = static_cast<size_t>(n_in) / 32;
        if (codes_.size() < n * blocks * 32) {
            codes_.resize(n * blocks * 32);
            scales_.resize(n * blocks);
            sums_.resize(n * blocks);
        }
        if (rows_.size() < static_cast<size_t>(n)) {
            rows_.resize(n);
        }
        for_rows(n, n_in, [&](int i) {
            int8_t* q = codes_.data() + i * blocks * 32;
            float* d = scales_.data() + i * blocks;
            float* sum = sums_.data() + i * blocks;
            const float* row = x + static_cast<ptrdiff_t>(i) * n_in;
            kernels_.quantize_row(row, static_cast<int>(blocks) * 32, q, d, sum);
            rows_[i] = {row, q, d, sum};
        });
    }

    const Kernels& kernels_;
    ThreadPool pool_;
    cpu::Attention attention_;
    std::vector<int8_t> codes_;   // [n, n_in]
    std::vector<float> scales_;   // [n, n_in/32]
    std::vector<float> sums_;     // [n, n_in/32]
    std::vector<QuantizedRow> rows_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int n_threads) { return std::make_unique<CpuBackend>(n_threads); }

}  // namespace lk
