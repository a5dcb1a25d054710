#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <utility>
#include <vector>

#include "backend/cpu/append.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/numeric_error.h"
#include "backend/sampling.h"
#include "base/memory.h"
#include "base/processors.h"
#include "base/thread_pool.h"

namespace lk {

namespace {

using cpu::activation_form;
using cpu::ActivationForm;
using cpu::Kernels;
using cpu::QuantizedRow;

constexpr int64_t kRowsPerTask = 32;   // weight rows: about 10 KB of weights, which fit the L1 cache
constexpr int64_t kRowsTogether = 16;  // rows that a kernel may process together
constexpr int64_t kElementsPerTask = 1 << 14;

int resolve_threads(int n_threads) {
    return n_threads > 0 ? n_threads : usable_processors();
}

class CpuBackend final : public Backend {
public:
    explicit CpuBackend(int n_threads)
        : kernels_(cpu::select_kernels()), pool_(resolve_threads(n_threads)), attention_(kernels_, pool_.size()) {}

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        for (int i = 0; i < n; ++i) {
            float* const row = out + i * table.n_cols;
            dequantize_row(table.type, table.data + tokens[i] * table.row_bytes, row, table.n_cols);
            if (!finite(row, table.n_cols)) {
                fail_embedding(table, {tokens + i, 1});
            }
        }
    }

    void make(const Rows& rows, int n, int dim, float* out) override {
        for_rows(n, dim, [&](int i) { make_row(rows, i, dim, out + int64_t{i} * dim); });
        if (!finite(out, int64_t{n} * dim)) {
            fail_rows(rows.form, nullptr);
        }
    }

    void matmul(const Rows& rows, int n, std::span<const Product> products) override {
        const int n_in = static_cast<int>(products[0].w->n_cols);
        quantize(rows, n, n_in, products);
        int64_t n_rows = 0;
        for (const Product& p : products) {
            n_rows += p.w->n_rows;
        }
        // Pieces are small enough to balance the threads and large enough to make scheduling cheap.
        const int64_t step = n_rows / (8 * pool_.size()) < kRowsPerTask ? kRowsTogether : kRowsPerTask;
        const auto pieces = [&](const Product& p) { return (p.w->n_rows + step - 1) / step; };
        int64_t n_tasks = 0;
        bool adds = false;
        for (const Product& p : products) {
            n_tasks += pieces(p);
            adds |= p.add;
        }
        if (adds) {
            sums_.resize(std::max(sums_.size(), static_cast<size_t>(n * n_rows)));
        }
        std::atomic<bool> broken = false;
        pool_.parallel_for(static_cast<int>(n_tasks), [&](int task, int) {
            const Product* p = products.data();
            int64_t piece = task;
            int64_t first_sum = 0;
            for (; piece >= pieces(*p); ++p) {
                piece -= pieces(*p);
                first_sum += n * p->w->n_rows;
            }
            float* const sums = adds ? sums_.data() + first_sum : nullptr;
            const int64_t n_out = p->w->n_rows;
            const int64_t begin = piece * step;
            const int64_t end = std::min(n_out, begin + step);
            kernels_.matmul(*p->w, begin, end, rows_.data(), n, p->add ? sums : p->y, n_out);
            for (int64_t at = begin; p->add && at < n * n_out; at += n_out) {
                kernels_.add(p->y + at, sums + at, end - begin);
            }
            if (n > 1 && !kernels_.finite(p->y + begin, end - begin, n, n_out)) {
                broken = true;
            }
        });
        // For one batch row, one check per matmul: a check per piece would take a noticeable part of the time.
        if (n == 1) {
            broken = !std::all_of(products.begin(), products.end(),
                                  [this](const Product& p) { return finite(p.y, p.w->n_rows); });
        }
        if (broken) {
            fail(rows, n, n_in, products);
        }
    }

    void stage(const StageArgs& args) override {
        const kv::CacheConfig& c = args.cache->config();
        rotate(args, args.n_head, c.head_size, args.q);
        rotate(args, c.n_head_kv, c.head_size, args.k);
        cpu::stage(*args.cache, kv::Side::keys, args.layer, args.n, args.k, kernels_.half_row);
        cpu::stage(*args.cache, kv::Side::values, args.layer, args.n, args.v, kernels_.half_row);
    }

    void attention(const AttentionArgs& args) override {
        attention_.run(args, pool_);
        const kv::CacheConfig& c = args.cache->config();
        for (const kv::Segment& s : args.segments) {
            const int64_t width = int64_t{args.n_head} * c.head_size;
            if (!finite(args.out + s.row * width, s.n_rows * width)) {
                fail_attention(c.first_layer + args.layer);
            }
        }
    }

    void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) override {
        pool_.parallel_for(n, [&](int i, int) {
            const bool keeps = samplings[i].keep_logits != 0;
            tokens[i] = keeps ? -1 : sample_row(logits + int64_t{i} * n_vocab, n_vocab, samplings[i]);
        });
    }

    void stage_pages(Pass& pass, kv::Layers layers) override {
        append_.stage_pages(pass.cache(), pass.segments(), layers, pool_);
    }

    void commit(Pass& pass) noexcept override { cpu::commit(pass.cache(), pass.segments(), pool_); }

private:
    bool finite(const float* x, int64_t n) const { return kernels_.finite(x, n, 1, n); }

    // Throws the error of the first non-finite input row or matmul of `rows`.
    [[noreturn]] void fail(const Rows& rows, int n, int n_in, std::span<const Product> products) const {
        for (int i = 0; i < n; ++i) {
            if (!finite(rows_[i].x, n_in)) {
                fail_rows(rows.form, products[0].w);
            }
        }
        const auto broken = [this, n](const Product& p) { return !finite(p.y, n * p.w->n_rows); };
        fail_product(*std::find_if(products.begin(), products.end() - 1, broken)->w);
    }

    // Rotates x[n, n_head, D] in place.
    void rotate(const StageArgs& args, int n_head, int head_size, float* x) {
        for_rows(args.n, n_head * head_size, [&](int i) {
            const float* angles = args.cos_sin + static_cast<ptrdiff_t>(i) * args.n_rot;
            for (int h = 0; h < n_head; ++h) {
                float* head = x + (static_cast<ptrdiff_t>(i) * n_head + h) * head_size;
                for (int j = 0; j < args.n_rot / 2; ++j) {
                    float& a = args.pairs == RopePairs::adjacent ? head[2 * j] : head[j];
                    float& b = args.pairs == RopePairs::adjacent ? head[2 * j + 1] : head[j + args.n_rot / 2];
                    const float c = angles[2 * j];
                    const float s = angles[2 * j + 1];
                    const float rotated = a * c - b * s;
                    b = a * s + b * c;
                    a = rotated;
                }
            }
        });
    }

    // Runs body(row) for n rows of `width` elements; on this thread alone if there are too few elements to wake others.
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

    // Computes row i of `rows`.
    void make_row(const Rows& rows, int64_t i, int dim, float* out) const {
        const float* const x = rows.x + i * dim;
        switch (rows.form) {
        case Rows::Form::plain:
            std::copy_n(x, dim, out);
            break;
        case Rows::Form::rms_norm:
            kernels_.rms_norm(x, rows.weight, rows.eps, dim, out);
            break;
        case Rows::Form::layer_norm:
            kernels_.layer_norm(x, rows.weight, rows.bias, rows.eps, dim, out);
            break;
        case Rows::Form::swiglu:
            std::copy_n(x, dim, out);
            kernels_.swiglu(out, rows.up + i * dim, dim);
            break;
        case Rows::Form::gelu:
            std::copy_n(x, dim, out);
            kernels_.gelu(out, dim);
            break;
        }
    }

    // Fills rows_[n] from `rows` [n, n_in], in the forms that the weights need. Buffers only grow.
    void quantize(const Rows& rows, int n, int n_in, std::span<const Product> products) {
        const auto needed = [&](ActivationForm form) {
            return std::any_of(products.begin(), products.end(),
                               [&](const Product& p) { return activation_form(p.w->type) == form; });
        };
        const bool plain = needed(ActivationForm::plain);
        const bool super = needed(ActivationForm::super);
        const auto grow = [](auto& buffer, size_t size) {
            if (buffer.size() < size) {
                buffer = std::remove_reference_t<decltype(buffer)>(host_memory(), size);
            }
        };
        const size_t size = static_cast<size_t>(n) * n_in;
        grow(plain_.codes, plain ? size : 0);
        grow(plain_.scales, plain ? size / kBlock : 0);
        grow(plain_.sums, plain ? size / kBlock : 0);
        grow(code_sums_, plain ? size / kBlock : 0);
        grow(super_.codes, super ? size : 0);
        grow(super_.scales, super ? size / kSuperBlock : 0);
        grow(super_.sums, super ? size / 16 : 0);
        rows_.resize(std::max(rows_.size(), static_cast<size_t>(n)));
        const bool made = rows.form != Rows::Form::plain;
        grow(made_, made ? size : 0);
        for_rows(n, n_in, [&](int i) {
            const size_t at = static_cast<size_t>(i) * n_in;
            QuantizedRow row{};
            if (made) {
                make_row(rows, i, n_in, made_.data() + at);
            }
            row.x = made ? made_.data() + at : rows.x + at;
            if (plain) {
                int8_t* const codes = plain_.codes.data() + at;
                float* const scales = plain_.scales.data() + at / kBlock;
                float* const sums = plain_.sums.data() + at / kBlock;
                int32_t* const code_sums = code_sums_.data() + at / kBlock;
                kernels_.quantize_plain(row.x, n_in, codes, scales, sums, code_sums);
                row.plain = {codes, scales, sums, code_sums};
            }
            if (super) {
                int8_t* const codes = super_.codes.data() + at;
                float* const scales = super_.scales.data() + at / kSuperBlock;
                int16_t* const sums = super_.sums.data() + at / 16;
                kernels_.quantize_super(row.x, n_in, codes, scales, sums);
                row.super = {codes, scales, sums};
            }
            rows_[i] = row;
        });
    }

    // Aligned, so that the vectors that kernels load do not cross cache lines.
    template <class Sum>
    struct ActivationBuffer {
        Buffer<int8_t> codes;
        Buffer<float> scales;
        Buffer<Sum> sums;
    };

    const Kernels& kernels_;
    ThreadPool pool_;
    cpu::Attention attention_;
    cpu::Append append_;
    ActivationBuffer<float> plain_;
    Buffer<int32_t> code_sums_;
    ActivationBuffer<int16_t> super_;
    Buffer<float> made_;  // computed rows of lazy operands
    std::vector<QuantizedRow> rows_;
    std::vector<float> sums_;  // results of matmuls with Product::add, before the addition
};

static_assert(noexcept(std::declval<CpuBackend&>().commit(std::declval<Pass&>())));

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int n_threads) {
    return std::make_unique<CpuBackend>(n_threads);
}

}  // namespace lk
