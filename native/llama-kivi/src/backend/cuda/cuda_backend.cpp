// The operations on a CUDA device: which kernel, with which arguments.
#include <cublas_v2.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "backend/cuda/append/append.h"
#include "backend/cuda/append/kernels.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/splits.h"
#include "backend/numeric_error.h"

namespace lk::cuda {

namespace {

using kv::Side;

constexpr int kFewRows = 4;                                // of a segment, for the kernels of decoding
constexpr size_t kDequantizedElements = size_t{64} << 20;  // at once, of a large matrix

void check_blas(cublasStatus_t status, const char* call) {
    LK_CHECK(status == CUBLAS_STATUS_SUCCESS, LK_DEVICE_ERROR, "cuBLAS failed: status %d (%s)", status, call);
}

class CudaBackend final : public Backend {
public:
    explicit CudaBackend(CudaDevice& device) : device_(device), broken_(device.memory(), 1), append_(device.memory()) {
        // Ordered with the legacy stream, on which buffers are allocated and copied.
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
        size_t n_runs = 0;
        for (const kv::Segment& s : segments) {
            n_runs += cache.sequence(s.seq).k.pages().size() + cache.sequence(s.seq).v.pages().size();
        }
        const size_t work_bytes = segments.size() * sizeof(SegmentWork);
        const size_t bytes = work_bytes + n_runs * sizeof(Run);
        reserve(work_, bytes);
        uint8_t* const host = pinned_work_.reserve(bytes);
        auto* const runs = reinterpret_cast<Run*>(host + work_bytes);
        const auto* device_runs = reinterpret_cast<const Run*>(work_.data() + work_bytes);
        size_t at = 0;
        const auto side = [&](const kv::SequenceSide& s, const half_t* staged, int row) {
            SideWork w{};
            w.runs = device_runs + at;
            w.n_runs = static_cast<int>(s.pages().size());
            int start = 0;
            for (const kv::PageRef& ref : s.pages()) {
                runs[at++] = {ref.block->data.data(), start, ref.count, ref.first, ref.frame};
                start += ref.count;
            }
            w.sinks = s.sinks();
            w.ring = s.ring();
            w.tables = s.tables();
            w.staged = staged + static_cast<size_t>(row) * cache.config().head_size;
            w.n_paged = s.n_paged();
            w.n_sinks = s.n_sinks();
            w.ring_start = s.ring_start();
            w.n_ring = s.n_ring();
            return w;
        };
        for (Group& group : groups_) {
            group.segments.clear();
            group.plan.reset();
        }
        append_.begin();
        n_rows_ = 0;
        places_.clear();
        results_.clear();
        for (const kv::Segment& s : segments) {
            const kv::Sequence& sequence = cache.sequence(s.seq);
            SegmentWork w{side(sequence.k, cache.staged(Side::keys), s.row),
                          side(sequence.v, cache.staged(Side::values), s.row),
                          s.row,
                          s.n_rows,
                          sequence.length(),
                          0,
                          0};
            groups_[group_of(cache, sequence, w)].segments.push_back(w);
            n_rows_ += s.n_rows;
        }
        auto* works = reinterpret_cast<SegmentWork*>(host);
        auto* device_works = reinterpret_cast<const SegmentWork*>(work_.data());
        for (Group& group : groups_) {
            group.device_segments = device_works;
            device_works += group.segments.size();
            works = std::copy(group.segments.begin(), group.segments.end(), works);
        }
        LK_CUDA(cudaMemcpyAsync(work_.data(), host, bytes, cudaMemcpyHostToDevice, stream_));
        LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_));
    }

    void finish() override {
        // What no kernel has read, logits foremost, has not been looked at.
        for (Result& result : results_) {
            if (!result.read) {
                check_finite(result.data, result.size, {broken_.data(), result.place}, stream_);
                result.read = true;
            }
        }
        int broken = 0;
        LK_CUDA(cudaGetLastError());
        LK_CUDA(cudaMemcpyAsync(&broken, broken_.data(), sizeof(int), cudaMemcpyDeviceToHost, stream_));
        LK_CUDA(cudaStreamSynchronize(stream_));
        if (broken != 0) {
            LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_));
            places_[broken - 1]();
        }
    }

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        reserve(tokens_, n);
        int32_t* host = reinterpret_cast<int32_t*>(pinned_tokens_.reserve(n * sizeof(int32_t)));
        std::memcpy(host, tokens, n * sizeof(int32_t));
        LK_CUDA(cudaMemcpyAsync(tokens_.data(), host, n * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
        const int place = add_place([this, n, t = &table] {
            const auto* const first = reinterpret_cast<const int32_t*>(pinned_tokens_.data());
            fail_embedding(*t, {first, static_cast<size_t>(n)});
        });
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
        const int n_cols = static_cast<int>(products[0].w->n_cols);
        const Rows rows = there(host_rows);
        const float* x = rows.x;
        VectorCodes codes{};
        if (n > 1) {
            reserve(half_x_, static_cast<size_t>(n) * n_cols);
            make_halves(rows, n, n_cols, half_x_.data(), watch_rows(host_rows, products[0].w), stream_);
        } else {
            const auto wants = [](const Product& p) { return wants_codes(p.w->type); };
            if (std::any_of(products.begin(), products.end(), wants)) {
                reserve(codes_, n_cols);
                reserve(code_blocks_, n_cols / 32);
                make_codes(rows, n_cols, codes_.data(), code_blocks_.data(), watch_rows(host_rows, products[0].w),
                           stream_);
                codes = {codes_.data(), code_blocks_.data()};
            }
            if (rows.form != Rows::Form::plain && !std::all_of(products.begin(), products.end(), wants)) {
                reserve(made_, n_cols);
                make_floats(rows, 1, n_cols, made_.data(), watch_rows(host_rows, products[0].w), stream_);
                x = made_.data();
            }
        }
        for (const Product& p : products) {
            add_result(p.y, n * p.w->n_rows, add_place([w = p.w] { fail_product(*w); }));
        }
        for (size_t i = 0; i < products.size();) {
            const Tensor& first = *products[i].w;
            if (n > (is_float(first.type) ? few_columns(first.type) : kTileColumns)) {
                multiply_halves(products[i++], n);
                continue;
            }
            const size_t begin = i;
            FewProducts few{};
            for (; i < products.size() && products[i].w->type == first.type && few.count < FewProducts::kMost; ++i) {
                few.w[few.count] = device_.weights(products[i].w->data);
                few.y[few.count] = products[i].y;
                few.add[few.count] = products[i].add;
                few.n_rows[few.count++] = static_cast<int>(products[i].w->n_rows);
            }
            if (n == 1) {
                multiply_vector(first.type, few, first.row_bytes, n_cols, x, codes, stream_);
                continue;
            }
            if (n <= few_columns(first.type)) {
                multiply_few(first.type, few, first.row_bytes, n_cols, half_x_.data(), n, stream_);
                continue;
            }
            const TilePlan plan = plan_tiles(first.type, few, n_cols, n, device_.processors());
            if (!plan.fits()) {
                for (const Product& product : products.subspan(begin, i - begin)) {
                    multiply_halves(product, n);
                }
                continue;
            }
            reserve(tile_sums_, plan.n_sums());
            reserve(tile_counts_, plan.n_tiles);
            multiply_tiles(first.type, few, first.row_bytes, n_cols, half_x_.data(), n, plan, tile_sums_.data(),
                           tile_counts_.data(), stream_);
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
        const kv::CacheConfig& c = args.cache->config();
        AttentionWork a{};
        a.q = args.q;
        a.out = args.out;
        a.frequency = device_.frequency();
        a.k = shape_of(args.cache->spec(Side::keys), c.n_ubatch);
        a.v = shape_of(args.cache->spec(Side::values), c.n_ubatch);
        a.n_rows = n_rows_;
        a.layer = args.layer;
        a.n_head = args.n_head;
        a.n_head_kv = c.n_head_kv;
        a.head_size = c.head_size;
        a.n_rot = device_.n_rot();
        a.halves = args.rotation.pairs == RopePairs::halves;
        a.window = args.window;
        a.scale = args.scale;
        for (Group& group : groups_) {
            if (!group.segments.empty()) {
                attend(group, a);
            }
        }
        const int layer = c.first_layer + args.layer;
        add_result(args.out, int64_t{n_rows_} * a.n_head * a.head_size, add_place([layer] { fail_attention(layer); }));
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

    void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers) override {
        append_.stage_pages(cache, segments, layers, stream_);
    }

    void commit(kv::Cache& cache, std::span<const kv::Segment> segments) override {
        append_.commit(cache, segments, stream_);
    }

private:
    using Place = std::function<void()>;  // throws what is said of it
    // What an operation writes, until another writes there.
    struct Result {
        const float* data;
        int64_t size;
        int place;
        bool read;  // by a kernel that reports what is not finite
    };

    // The number of a place.
    int add_place(Place place) {
        places_.push_back(std::move(place));
        return static_cast<int>(places_.size());
    }

    void add_result(const float* data, int64_t size, int place, bool read = false) {
        const auto known =
            std::find_if(results_.begin(), results_.end(), [=](const Result& r) { return r.data == data; });
        (known != results_.end() ? *known : results_.emplace_back()) = {data, size, place, read};
    }

    // The place of what x points into, which a kernel that reports now reads; otherwise: if no operation wrote it.
    int read_result(const float* x, Place otherwise) {
        for (Result& r : results_) {
            if (x >= r.data && x < r.data + r.size) {
                r.read = true;
                return r.place;
            }
        }
        return add_place(std::move(otherwise));
    }

    // rows: as they are named on the host. w: what they are made for; null: the outputs.
    RowsWatch watch_rows(const Rows& rows, const Tensor* w) {
        const Place made = [form = rows.form, w] { fail_rows(form, w); };
        const int place = add_place(made);
        return {broken_.data(), read_result(rows.x, made), rows.up != nullptr ? read_result(rows.up, made) : place,
                place};
    }

    // Rows whose weights are named by where they lie on the device.
    Rows there(const Rows& rows) const {
        Rows r = rows;
        r.weight = rows.weight != nullptr ? device_.floats(rows.weight) : nullptr;
        r.bias = rows.bias != nullptr ? device_.floats(rows.bias) : nullptr;
        return r;
    }

    // Grows; what was there is lost, and queued work that uses it is ordered before its release.
    template <class T>
    void reserve(Buffer<T>& buffer, size_t size) {
        if (buffer.size() < size) {
            buffer = Buffer<T>(device_.memory(), size + size / 2);
        }
    }

    // The product of half_x_[n, n_cols] on the matrix units. Weights in another form become halves first, a part at a
    // time.
    void multiply_halves(const Product& product, int n) {
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
            check_blas(cublasGemmEx(blas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(count), n,
                                    static_cast<int>(w.n_cols), &one, halves, CUDA_R_16F, static_cast<int>(w.n_cols),
                                    half_x_.data(), CUDA_R_16F, static_cast<int>(w.n_cols), &before, product.y + row,
                                    CUDA_R_32F, static_cast<int>(w.n_rows), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "cublasGemmEx");
        }
    }

    struct Plan {
        AttentionKernel others;  // outside the pages
        AttentionKernel pages;
        int max_rows;  // of a segment
        int n_splits;
        int n_page_splits;
    };
    // Segments that the same kernels take.
    struct Group {
        std::vector<SegmentWork> segments;
        const SegmentWork* device_segments;
        std::optional<Plan> plan;
    };
    enum { kFewExact, kFew, kMany, kGroups };  // few rows, and all but the pages in full precision; few; many

    static int group_of(const kv::Cache& cache, const kv::Sequence& sequence, SegmentWork& w) {
        if (w.n_rows > kFewRows) {
            return kMany;
        }
        if (pages_apply(cache.spec(Side::keys).format, cache.spec(Side::values).format)) {
            count_common_runs(sequence, w);
        }
        return is_exact(cache, Side::keys, sequence.k, w) && is_exact(cache, Side::values, sequence.v, w) ? kFewExact
                                                                                                          : kFew;
    }

    // The leading runs in which keys and values of the same tokens lie alike, and for the positions they have now.
    static void count_common_runs(const kv::Sequence& sequence, SegmentWork& w) {
        const std::span<const kv::PageRef> k = sequence.k.pages();
        const std::span<const kv::PageRef> v = sequence.v.pages();
        const size_t n = std::min(k.size(), v.size());
        for (size_t i = 0; i < n && k[i].frame == 0 && k[i].count == v[i].count && k[i].first == v[i].first; ++i) {
            ++w.page_runs;
            w.page_tokens += k[i].count;
        }
    }

    // Whether a side has in full precision, and for the positions they have now, all tokens that the kernel for pages
    // leaves.
    static bool is_exact(const kv::Cache& cache, Side side, const kv::SequenceSide& s, const SegmentWork& w) {
        if (cache.spec(side).format.quantized()) {
            return s.n_paged() == w.page_tokens;
        }
        return w.page_tokens == 0 &&
               std::all_of(s.pages().begin(), s.pages().end(), [](const kv::PageRef& ref) { return ref.frame == 0; });
    }

    // Which kernels a group's attention takes, the same in every layer.
    Plan make_plan(const Group& group, AttentionWork& a) {
        a.max_rows = 0;
        int tokens = 0;     // of the longest segment, outside the pages
        int page_runs = 0;  // of the segment with most
        for (const SegmentWork& w : group.segments) {
            a.max_rows = std::max(a.max_rows, w.n_rows);
            tokens = std::max(tokens, w.length + w.n_rows - w.page_tokens + w.k.n_sinks);
            page_runs = std::max(page_runs, w.page_runs);
        }
        const int rows = a.max_rows * (a.n_head / a.n_head_kv);
        const bool exact = &group == &groups_[kFewExact];
        const bool by_rows = exact && rows <= kFewRows && (a.head_size == 64 || a.head_size == 128);
        Plan plan{};
        plan.max_rows = a.max_rows;
        plan.others = by_rows ? rows_kernel(a) : flash_kernel(a);
        plan.n_splits = splits(a, plan.others, tokens);
        if (page_runs > 0) {
            plan.pages = a.k.format.blocks() ? block_pages_kernel(a)
                         : rows == 1         ? pages_row_kernel(a)
                                             : pages_kernel(a);
            plan.n_page_splits = splits(a, plan.pages, page_runs * kv::kPageTokens);
        }
        return plan;
    }

    void attend(Group& group, AttentionWork& a) {
        a.segments = group.device_segments;
        a.n_segments = static_cast<int>(group.segments.size());
        if (!group.plan) {
            group.plan = make_plan(group, a);
        }
        const Plan& plan = *group.plan;
        a.max_rows = plan.max_rows;
        a.n_splits = plan.n_splits;
        a.n_page_splits = plan.n_page_splits;
        const int n_splits = a.n_page_splits + a.n_splits;
        if (n_splits > 1) {
            reserve(partial_, static_cast<size_t>(n_splits) * a.n_rows * a.n_head * (a.head_size + 2));
            a.partial = partial_.data();
        }
        launch(a, plan.others, a.n_splits);
        if (a.n_page_splits > 0) {
            launch(a, plan.pages, a.n_page_splits);
        }
        if (n_splits > 1) {
            attention_join(a, stream_);
        }
    }

    static int count_blocks(const AttentionWork& a, const AttentionKernel& kernel) {
        const int rows = a.max_rows * (a.n_head / a.n_head_kv);
        return a.n_head_kv * ((rows + kernel.n_rows - 1) / kernel.n_rows);
    }

    int splits(const AttentionWork& a, const AttentionKernel& kernel, int n_tokens) {
        constexpr double kOverhead = 1.5;  // of a block, in its steps
        const int n_pieces = (n_tokens + kernel.n_tokens - 1) / kernel.n_tokens;
        return choose_splits(count_blocks(a, kernel) * a.n_segments, n_pieces, slots(kernel), kOverhead);
    }

    // How many blocks run at once.
    int slots(const AttentionKernel& kernel) {
        const auto known = slots_.find(kernel.function);
        if (known != slots_.end()) {
            return known->second;
        }
        LK_CUDA(
            cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, kernel.shared_bytes));
        int blocks = 0;
        LK_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel.function, AttentionKernel::kThreads,
                                                              kernel.shared_bytes));
        return slots_[kernel.function] = std::max(1, blocks) * device_.processors().count;
    }

    void launch(AttentionWork& a, const AttentionKernel& kernel, int n_splits) {
        const dim3 grid(count_blocks(a, kernel), n_splits, a.n_segments);
        void* arguments[] = {&a};
        LK_CUDA(
            queue_kernel(kernel.function, grid, AttentionKernel::kThreads, kernel.shared_bytes, stream_, arguments));
    }

    CudaDevice& device_;
    cudaStream_t stream_ = nullptr;
    cublasHandle_t blas_ = nullptr;
    Buffer<int> broken_;         // see Watch
    std::vector<Place> places_;  // of the pass
    std::vector<Result> results_;
    Buffer<uint8_t> work_;
    Append append_;
    Buffer<int32_t> tokens_;
    Buffer<uint16_t> half_x_;
    Buffer<uint16_t> half_w_;
    Buffer<float> made_;    // a row that is not plain
    Buffer<int8_t> codes_;  // of a row
    Buffer<float2> code_blocks_;
    Buffer<float> partial_;
    Buffer<float> tile_sums_;
    Buffer<int> tile_counts_;
    Buffer<double> draws_;
    Buffer<int32_t> sampled_;
    PinnedBuffer pinned_work_;
    PinnedBuffer pinned_tokens_;
    PinnedBuffer pinned_draws_;
    std::map<const void*, int> slots_;  // of kernels
    Group groups_[kGroups];
    int n_rows_ = 0;
};

}  // namespace

std::unique_ptr<Backend> CudaDevice::make_backend() {
    return std::make_unique<CudaBackend>(*this);
}

}  // namespace lk::cuda
