// The CUDA backend: selects kernels, computes their arguments and launches them.
#include <cublas_v2.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "backend/cuda/append/append.h"
#include "backend/cuda/append/kernels.h"
#include "backend/cuda/attention/attention.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/plan/matmul_launch.h"
#include "backend/cuda/plan/numeric_watch.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/cuda/queue.h"
#include "backend/numeric_error.h"

namespace lk::cuda {

namespace {

using kv::Side;

constexpr size_t kDequantizedElements = size_t{64} << 20;  // of a large matrix, dequantized at a time

void check_blas(cublasStatus_t status, const char* call) {
    LK_CHECK(status == CUBLAS_STATUS_SUCCESS, LK_DEVICE_ERROR, "cuBLAS failed: status %d (%s)", status, call);
}

class CudaBackend final : public Backend {
public:
    explicit CudaBackend(CudaDevice& device) : device_(device), broken_(device.memory(), 1), append_(device.memory()) {
        // A blocking stream is ordered with the legacy stream, on which buffers are allocated and copied.
        LK_CUDA(cudaStreamCreate(&stream_));
        check_blas(cublasCreate(&blas_), "cublasCreate");
        check_blas(cublasSetStream(blas_, stream_), "cublasSetStream");
    }

    ~CudaBackend() override {
        cudaStreamSynchronize(stream_);
        cublasDestroy(blas_);
        cudaStreamDestroy(stream_);
    }

    Memory& memory() override { return device_.memory(); }

    void begin(kv::Cache& cache, std::span<const kv::Segment> segments) override {
        watch_.clear();
        pass_.reset();
        append_.begin();
        Pass pass{&cache, {segments.begin(), segments.end()}, plan_pass(cache, segments), {}};
        pass.groups.resize(pass.plan.groups.size());
        reserve(work_, pass.plan.bytes());
        uint8_t* const host = pinned_work_.reserve(pass.plan.bytes());
        write_pass(pass.plan, cache, host, work_.data());
        LK_CUDA(cudaMemcpyAsync(work_.data(), host, pass.plan.bytes(), cudaMemcpyHostToDevice, stream_));
        LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_));
        pass_ = std::move(pass);
    }

    void finish() override {
        NumericWatch seen = std::exchange(watch_, {});
        // Check the results that no kernel has read, such as the logits.
        seen.for_unread([&](const NumericWatch::Result& r) {
            check_finite(r.data, r.size, {broken_.data(), r.place}, stream_);
        });
        int broken = 0;
        LK_CUDA(cudaGetLastError());
        LK_CUDA(cudaMemcpyAsync(&broken, broken_.data(), sizeof(int), cudaMemcpyDeviceToHost, stream_));
        LK_CUDA(cudaStreamSynchronize(stream_));
        if (broken != 0) {
            LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_));
            seen.fail(broken);
        }
    }

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        reserve(tokens_, n);
        int32_t* host = reinterpret_cast<int32_t*>(pinned_tokens_.reserve(n * sizeof(int32_t)));
        std::memcpy(host, tokens, n * sizeof(int32_t));
        LK_CUDA(cudaMemcpyAsync(tokens_.data(), host, n * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
        const int place =
            add_place([t = &table, rows = std::vector<int32_t>(tokens, tokens + n)] { fail_embedding(*t, rows); });
        cuda::embed(table.type, device_.weights(table.data), table.row_bytes, tokens_.data(), n,
                    static_cast<int>(table.n_cols), out, {broken_.data(), place}, stream_);
        add_result(out, n * table.n_cols, place, true);
    }

    void make(const Rows& rows, int n, int dim, float* out) override {
        const RowsWatch watch = watch_rows(rows, nullptr);
        make_floats(there(rows), n, dim, out, watch, stream_);
        add_result(out, int64_t{n} * dim, watch.made, true);
    }

    void matmul(const Rows& host_rows, int n, std::span<const Product> products) override {
        const MatmulInput input = make_input(host_rows, n, products);
        for (const Product& p : products) {
            add_result(p.y, n * p.w->n_rows, add_place([w = p.w] { fail_product(*w); }));
        }
        while (!products.empty()) {
            const MatmulLaunch launch = next_launch(products, n, device_.processors().shared_bytes);
            multiply(launch.kernel, products.first(launch.count), input);
            products = products.subspan(launch.count);
        }
    }

    void stage(const StageArgs& args) override {
        kv::Cache& cache = *args.cache;
        const kv::CacheConfig& c = cache.config();
        const size_t offset = static_cast<size_t>(args.layer) * c.n_head_kv * c.n_ubatch * c.head_size;
        StageWork w{};
        w.k_shape = shape_of(cache.spec(Side::keys), c.n_ubatch);
        w.v_shape = shape_of(cache.spec(Side::values), c.n_ubatch);
        w.q = args.q;
        w.k = args.k;
        w.v = args.v;
        w.cos_sin = args.cos_sin;
        w.staged_k = cache.staged(Side::keys) + offset;
        w.staged_v = cache.staged(Side::values) + offset;
        const int layer = c.first_layer + args.layer;
        w.broken = broken_.data();
        w.q_place = read_result(args.q, [] { LK_FAIL(LK_NUMERIC_ERROR, "a query is NaN or infinite"); });
        w.k_place = read_result(args.k, [layer] { kv::fail_staged(Side::keys, layer, false); });
        w.v_place = read_result(args.v, [layer] { kv::fail_staged(Side::values, layer, false); });
        w.large_k_place = add_place([layer] { kv::fail_staged(Side::keys, layer, true); });
        w.large_v_place = add_place([layer] { kv::fail_staged(Side::values, layer, true); });
        w.n = args.n;
        w.n_head = args.n_head;
        w.n_head_kv = c.n_head_kv;
        w.n_rot = args.n_rot;
        w.halves = args.pairs == RopePairs::halves;
        cuda::stage(w, stream_);
    }

    void attention(const AttentionArgs& args) override {
        Pass& pass = pass_of(args);
        const kv::CacheConfig& c = args.cache->config();
        AttentionWork a{};
        a.q = args.q;
        a.out = args.out;
        a.frequency = device_.frequency();
        a.k = shape_of(args.cache->spec(Side::keys), c.n_ubatch);
        a.v = shape_of(args.cache->spec(Side::values), c.n_ubatch);
        a.n_rows = pass.plan.n_rows;
        a.layer = args.layer;
        a.n_head = args.n_head;
        a.n_head_kv = c.n_head_kv;
        a.head_size = c.head_size;
        a.n_rot = device_.n_rot();
        a.halves = args.rotation.pairs == RopePairs::halves;
        a.window = args.window;
        a.scale = args.scale;
        const auto* const segments = reinterpret_cast<const SegmentWork*>(work_.data());
        for (size_t i = 0; i < pass.groups.size(); ++i) {
            const SegmentGroup& group = pass.plan.groups[i];
            const AttentionRequest request = attention_request(*args.cache, group, args.n_head);
            std::optional<PlannedAttention>& planned = pass.groups[i];
            if (!planned || planned->request.n_head != request.n_head) {
                planned = plan_attention(request);
            }
            a.segments = segments + group.first;
            a.n_segments = request.n_segments;
            a.max_rows = request.max_rows;
            attend(*planned, a);
        }
        const int layer = c.first_layer + args.layer;
        add_result(args.out, int64_t{a.n_rows} * a.n_head * a.head_size, add_place([layer] { fail_attention(layer); }));
    }

    void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws,
                int32_t* tokens) override {
        reserve(draws_, n);
        reserve(sampled_, n);
        double* const host = reinterpret_cast<double*>(pinned_draws_.reserve(n * sizeof(double)));
        std::memcpy(host, draws, n * sizeof(double));
        LK_CUDA(cudaMemcpyAsync(draws_.data(), host, n * sizeof(double), cudaMemcpyHostToDevice, stream_));
        const int place = read_result(logits, [] { LK_FAIL(LK_NUMERIC_ERROR, "a logit is NaN or infinite"); });
        cuda::sample(logits, n, n_vocab, sampling, draws_.data(), sampled_.data(), {broken_.data(), place}, stream_);
        LK_CUDA(cudaMemcpyAsync(tokens, sampled_.data(), n * sizeof(int32_t), cudaMemcpyDeviceToHost, stream_));
    }

    bool reads_staged_pages() const override { return false; }
    void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers) override {
        append_.stage_pages(cache, segments, layers, stream_);
    }

    void commit(kv::Cache& cache, std::span<const kv::Segment> segments) override {
        append_.commit(cache, segments, stream_);
    }

private:
    int add_place(NumericWatch::Place place) { return watch_.add_place(std::move(place)); }
    void add_result(const float* data, int64_t size, int place, bool read = false) {
        watch_.add_result(data, size, place, read);
    }
    int read_result(const float* x, NumericWatch::Place unknown) { return watch_.read_result(x, std::move(unknown)); }

    // rows: with host pointers to weights. w: the matrix they are multiplied with; null for the outputs.
    RowsWatch watch_rows(const Rows& rows, const Tensor* w) {
        const NumericWatch::Place made = [form = rows.form, w] { fail_rows(form, w); };
        const int place = add_place(made);
        return {broken_.data(), read_result(rows.x, made), rows.up != nullptr ? read_result(rows.up, made) : place,
                place};
    }

    // rows with device pointers to weights.
    Rows there(const Rows& rows) const {
        Rows r = rows;
        r.weight = rows.weight != nullptr ? device_.floats(rows.weight) : nullptr;
        r.bias = rows.bias != nullptr ? device_.floats(rows.bias) : nullptr;
        return r;
    }

    // Grows a buffer and discards its content. Its release is ordered after queued work that uses it.
    template <class T>
    void reserve(Buffer<T>& buffer, size_t size) {
        if (buffer.size() < size) {
            buffer = Buffer<T>(device_.memory(), size + size / 2);
        }
    }

    // Activations of a matmul, in the forms that its kernels take.
    struct MatmulInput {
        int n;
        int n_cols;
        const float* x;          // n == 1
        VectorCodes codes;       // n == 1
        const uint16_t* halves;  // n > 1
    };

    MatmulInput make_input(const Rows& host_rows, int n, std::span<const Product> products) {
        const Tensor& first = *products[0].w;
        const int n_cols = static_cast<int>(first.n_cols);
        const Rows rows = there(host_rows);
        MatmulInput input{n, n_cols, rows.x, {}, nullptr};
        if (n > 1) {
            reserve(half_x_, static_cast<size_t>(n) * n_cols);
            make_halves(rows, n, n_cols, half_x_.data(), watch_rows(host_rows, &first), stream_);
            input.halves = half_x_.data();
            return input;
        }
        const auto takes = [&](MatmulKernel kernel) {
            return std::any_of(products.begin(), products.end(), [&](const Product& p) {
                return select_matmul(p.w->type, p.w->n_cols, n, device_.processors().shared_bytes) == kernel;
            });
        };
        if (takes(MatmulKernel::vector_codes)) {
            reserve(codes_, n_cols);
            reserve(code_blocks_, n_cols / 32);
            make_codes(rows, n_cols, codes_.data(), code_blocks_.data(), watch_rows(host_rows, &first), stream_);
            input.codes = {codes_.data(), code_blocks_.data()};
        }
        if (rows.form != Rows::Form::plain && takes(MatmulKernel::vector)) {
            reserve(made_, n_cols);
            make_floats(rows, 1, n_cols, made_.data(), watch_rows(host_rows, &first), stream_);
            input.x = made_.data();
        }
        return input;
    }

    // products: the matmuls of one launch.
    void multiply(MatmulKernel kernel, std::span<const Product> products, const MatmulInput& input) {
        const Tensor& first = *products[0].w;
        LK_CHECK(first.n_cols == input.n_cols, LK_INTERNAL_ERROR, "matmul: weights have %lld columns, but rows have %d",
                 static_cast<long long>(first.n_cols), input.n_cols);
        FewProducts few{};
        for (const Product& p : products) {
            few.w[few.count] = device_.weights(p.w->data);
            few.y[few.count] = p.y;
            few.add[few.count] = p.add;
            few.n_rows[few.count++] = static_cast<int>(p.w->n_rows);
        }
        switch (kernel) {
        case MatmulKernel::vector:
        case MatmulKernel::vector_codes:
            return multiply_vector(first.type, few, first.row_bytes, input.n_cols, input.x, input.codes, stream_);
        case MatmulKernel::few:
            return multiply_few(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, stream_);
        case MatmulKernel::tiles: {
            const TilePlan plan = plan_tiles(first.type, few, input.n_cols, input.n, device_.processors());
            reserve(tile_sums_, plan.n_sums());
            reserve(tile_counts_, plan.n_tiles);
            return multiply_tiles(first.type, few, first.row_bytes, input.n_cols, input.halves, input.n, plan,
                                  tile_sums_.data(), tile_counts_.data(), stream_);
        }
        case MatmulKernel::halves:
            return multiply_halves(products[0], input);
        }
        fail_weights("matmul", first.type);
    }

    // Multiplies with cuBLAS. Weights that are not F16 are first converted to halves, a part at a time.
    void multiply_halves(const Product& product, const MatmulInput& input) {
        const Tensor& w = *product.w;
        const uint8_t* data = device_.weights(w.data);
        const bool as_is = w.type == WeightType::F16;
        const int64_t step =
            as_is ? w.n_rows : std::max<int64_t>(1, static_cast<int64_t>(kDequantizedElements) / w.n_cols);
        for (int64_t row = 0; row < w.n_rows; row += step) {
            const int64_t count = std::min(step, w.n_rows - row);
            const uint16_t* halves = reinterpret_cast<const uint16_t*>(data);
            if (!as_is) {
                reserve(half_w_, count * w.n_cols);
                dequantize(w.type, data + row * w.row_bytes, count * w.n_cols, half_w_.data(), stream_);
                halves = half_w_.data();
            }
            const float one = 1;
            const float before = product.add ? 1 : 0;
            check_blas(cublasGemmEx(blas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(count), input.n,
                                    static_cast<int>(w.n_cols), &one, halves, CUDA_R_16F, static_cast<int>(w.n_cols),
                                    input.halves, CUDA_R_16F, static_cast<int>(w.n_cols), &before, product.y + row,
                                    CUDA_R_32F, static_cast<int>(w.n_rows), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "cublasGemmEx");
        }
    }

    // The plan of a group of segments, for layers with request.n_head query heads.
    struct PlannedAttention {
        AttentionRequest request;
        AttentionChoice choice;
        AttentionSplits splits;
        AttentionFunction rest;
        AttentionFunction pages;  // valid if splits.pages > 0
    };
    // A pass as laid out by begin, for the attention of all layers; work_ holds the plan's image.
    struct Pass {
        const kv::Cache* cache;
        std::vector<kv::Segment> segments;
        PassPlan plan;
        std::vector<std::optional<PlannedAttention>> groups;  // one per group of the plan
    };

    // Returns the current pass; checks that begin laid it out for these segments.
    Pass& pass_of(const AttentionArgs& args) {
        const auto same = [](const kv::Segment& a, const kv::Segment& b) {
            return a.seq == b.seq && a.row == b.row && a.n_rows == b.n_rows;
        };
        LK_CHECK(pass_ && pass_->cache == args.cache &&
                     std::equal(pass_->segments.begin(), pass_->segments.end(), args.segments.begin(),
                                args.segments.end(), same),
                 LK_INTERNAL_ERROR, "attention: the pass was begun for another cache or other segments");
        return *pass_;
    }

    PlannedAttention plan_attention(const AttentionRequest& request) {
        PlannedAttention p{request, select_attention(request), {}, {}, {}};
        const bool pages = p.choice.pages.kernel != AttentionKernel::none;
        p.rest = attention_function(p.choice.rest, request.k, request.v);
        if (pages) {
            p.pages = attention_function(p.choice.pages, request.k, request.v);
        }
        p.splits = split_attention(request, p.choice, slots(p.rest), pages ? slots(p.pages) : 0);
        return p;
    }

    void attend(const PlannedAttention& p, AttentionWork a) {
        a.n_splits = p.splits.rest;
        a.n_page_splits = p.splits.pages;
        if (p.splits.all() > 1) {
            reserve(partial_, static_cast<size_t>(p.splits.all()) * a.n_rows * a.n_head * (a.head_size + 2));
            a.partial = partial_.data();
        }
        const auto launch = [&](const AttentionFunction& f, const AttentionVariant& variant, int n_splits) {
            const dim3 grid(attention_blocks(p.request, variant), n_splits, a.n_segments);
            void* arguments[] = {&a};
            LK_CUDA(queue_kernel(f.function, grid, AttentionFunction::kThreads, f.shared_bytes, stream_, arguments));
        };
        launch(p.rest, p.choice.rest, p.splits.rest);
        if (p.splits.pages > 0) {
            launch(p.pages, p.choice.pages, p.splits.pages);
        }
        if (p.splits.all() > 1) {
            attention_join(a, stream_);
        }
    }

    // Number of thread blocks that the device runs at once. Raises the kernel's shared memory limit to the device's,
    // because other contexts run the same kernel with other page sizes.
    int slots(const AttentionFunction& f) {
        const std::pair key(f.function, f.shared_bytes);
        const auto known = slots_.find(key);
        if (known != slots_.end()) {
            return known->second;
        }
        const int most = device_.processors().shared_bytes;
        LK_CHECK(f.shared_bytes <= most, LK_UNSUPPORTED,
                 "attention: the CUDA kernel needs %d bytes of shared memory; the GPU has %d per thread block",
                 f.shared_bytes, most);
        LK_CUDA(cudaFuncSetAttribute(f.function, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
        int blocks = 0;
        LK_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f.function, AttentionFunction::kThreads,
                                                              f.shared_bytes));
        return slots_[key] = std::max(1, blocks) * device_.processors().count;
    }

    CudaDevice& device_;
    cudaStream_t stream_ = nullptr;
    cublasHandle_t blas_ = nullptr;
    Buffer<int> broken_;  // see Watch
    NumericWatch watch_;  // for the current pass
    std::optional<Pass> pass_;
    Buffer<uint8_t> work_;  // image of pass_->plan
    Append append_;
    Buffer<int32_t> tokens_;
    Buffer<uint16_t> half_x_;
    Buffer<uint16_t> half_w_;
    Buffer<float> made_;    // an evaluated lazy row
    Buffer<int8_t> codes_;  // a row in 8 bits
    Buffer<float2> code_blocks_;
    Buffer<float> partial_;
    Buffer<float> tile_sums_;
    Buffer<int> tile_counts_;
    Buffer<double> draws_;
    Buffer<int32_t> sampled_;
    PinnedBuffer pinned_work_;
    PinnedBuffer pinned_tokens_;
    PinnedBuffer pinned_draws_;
    std::map<std::pair<const void*, int>, int> slots_;  // slots by kernel and shared memory bytes
};

}  // namespace

std::unique_ptr<Backend> CudaDevice::make_backend() {
    return std::make_unique<CudaBackend>(*this);
}

}  // namespace lk::cuda
