// The CUDA backend: selects kernels, computes their arguments and launches them.
#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backend/cuda/append/append.h"
#include "backend/cuda/append/kernels.h"
#include "backend/cuda/attention/attention_queue.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/cuda_pass.h"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/stream.h"
#include "backend/cuda/elementwise/elementwise.h"
#include "backend/cuda/elementwise/sampling_table.h"
#include "backend/cuda/matmul/matmul_queue.h"
#include "backend/cuda/plan/matmul_launch.h"
#include "backend/cuda/plan/numeric_watch.h"
#include "backend/cuda/plan/pass_plan.h"
#include "backend/cuda/plan/stream_plan.h"
#include "backend/numeric_error.h"
#include "base/error.h"

namespace lk::cuda {

namespace {

using kv::Side;

class QueuedBackend final : public CudaBackend {
public:
    QueuedBackend(CudaDevice& device, bool batch_invariant)
        : device_(device),
          batch_invariant_(batch_invariant),
          stream_(device.memory()),
          broken_(device.memory(), 1),
          matmul_(device.weights(), device.processors(), batch_invariant, stream_),
          attention_(device.processors()) {}

    ~QueuedBackend() override { cudaStreamSynchronize(stream_.ahead()); }

    std::unique_ptr<CudaPass> begin(const lk_plugin_pass_rows& rows) override {
        watch_.clear();
        stream_.drop();
        sampled_.take();
        auto pass = std::make_unique<CudaPass>(rows, batch_invariant_, images_, device_.memory(), stream_.ahead());
        LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_.ahead()));
        if (is_decode_step(pass->plan, segments_of(rows))) {
            stream_.record(pass->plan.n_rows);
        }
        return pass;
    }

    void finish() override {
        NumericWatch seen = std::exchange(watch_, {});
        const std::span<int32_t> sampled = sampled_.take();
        // Check the results that no kernel has read, such as the logits.
        seen.for_unread([&](const NumericWatch::Result& r) {
            check_finite(r.data, r.size, {broken_.data(), r.place}, stream_);
        });
        stream_.end();
        auto* const broken = reinterpret_cast<int*>(pinned_broken_.reserve(sizeof(int)));
        LK_CUDA(cudaGetLastError());
        LK_CUDA(cudaMemcpyAsync(broken, broken_.data(), sizeof(int), cudaMemcpyDeviceToHost, stream_.ahead()));
        LK_CUDA(cudaStreamSynchronize(stream_.ahead()));
        if (*broken != 0) {
            LK_CUDA(cudaMemsetAsync(broken_.data(), 0, sizeof(int), stream_.ahead()));
            seen.fail(*broken);
        }
        sampled_.deliver(sampled);
    }

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        reserve(tokens_, n);
        int32_t* host = reinterpret_cast<int32_t*>(pinned_tokens_.reserve(n * sizeof(int32_t)));
        std::memcpy(host, tokens, n * sizeof(int32_t));
        LK_CUDA(cudaMemcpyAsync(tokens_.data(), host, n * sizeof(int32_t), cudaMemcpyHostToDevice, stream_.next()));
        const int place =
            add_place([t = &table, rows = std::vector<int32_t>(tokens, tokens + n)] { fail_embedding(*t, rows); });
        cuda::embed(table.type, device_.weights().at(table.data), table.row_bytes, tokens_.data(), n,
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
            const MatmulLaunch launch = next_launch(products, n, device_.processors(), batch_invariant_);
            matmul_.run(launch.kernel, products.first(launch.count), input);
            products = products.subspan(launch.count);
        }
    }

    void stage(CudaPass& pass, const lk_plugin_stage& args) override {
        const PassCache& cache = pass.cache;
        const kv::CacheConfig& c = cache.config();
        const size_t first_row = static_cast<size_t>(args.layer) * c.n_head_kv * c.n_ubatch;
        StageWork w{};
        w.k_shape = side_shape(cache.spec(Side::keys), c.n_ubatch);
        w.v_shape = side_shape(cache.spec(Side::values), c.n_ubatch);
        w.q = args.q;
        w.k = args.k;
        w.v = args.v;
        w.cos_sin = args.cos_sin;
        w.staged_k = cache.staged(Side::keys) + first_row * w.k_shape.staged_width;
        w.staged_v = cache.staged(Side::values) + first_row * w.v_shape.staged_width;
        w.blocks_k = staged_blocks(cache, Side::keys, args.layer);
        w.blocks_v = staged_blocks(cache, Side::values, args.layer);
        w.sink_rows_k = pass.sink_rows(Side::keys);
        w.sink_rows_v = pass.sink_rows(Side::values);
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
        w.halves = args.halves;
        clear_padding(w);
        cuda::stage(w, stream_);
    }

    void attention(CudaPass& pass, const lk_plugin_attention& args) override {
        const kv::CacheConfig& c = pass.cache.config();
        AttentionWork a{};
        a.q = args.q;
        a.out = args.out;
        a.frequency = device_.frequency();
        a.k = side_shape(pass.cache.spec(Side::keys), c.n_ubatch);
        a.v = side_shape(pass.cache.spec(Side::values), c.n_ubatch);
        a.n_rows = pass.plan.n_rows;
        a.layer = args.layer;
        a.n_head = args.n_head;
        a.n_head_kv = c.n_head_kv;
        a.head_size = c.head_size;
        a.n_rot = device_.n_rot();
        a.halves = args.halves != 0;
        a.window = args.window;
        a.scale = args.scale;
        if (pass.attention.empty() || pass.attention.front().request.n_head != args.n_head) {
            pass.attention.clear();
            for (const AttentionRequest& request :
                 attention_requests(pass.cache, pass.plan, args.n_head, batch_invariant_)) {
                pass.attention.push_back(attention_.plan(request));
            }
        }
        a.segments = pass.works();
        for (const PlannedAttention& planned : pass.attention) {
            a.n_segments = planned.request.n_segments;
            a.max_rows = planned.request.max_rows;
            attention_.run(planned, a, stream_);
            a.segments += a.n_segments;
        }
        const int layer = c.first_layer + args.layer;
        add_result(args.out, int64_t{a.n_rows} * a.n_head * a.head_size, add_place([layer] { fail_attention(layer); }));
    }

    void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) override {
        int32_t* const sampled = sampled_.make(tokens, n, stream_);
        // Nothing that is recorded reads the table: an earlier call has run its launches.
        const lk_sampling* const rows = samplings_.upload(samplings, n, device_.memory(), stream_.ahead());
        const int place = read_result(logits, [] { LK_FAIL(LK_NUMERIC_ERROR, "a logit is NaN or infinite"); });
        cuda::sample(logits, n, n_vocab, rows, sampled, {broken_.data(), place}, stream_);
        sampled_.fetch(stream_.next());
    }

    void stage_pages(CudaPass& pass, kv::Layers layers) override {
        if (const std::optional<kv::Layers> due = pass.layers_to_stage(layers)) {
            const Stream::AfterGraph after(stream_);
            cuda::stage_pages(pass.cache, pass.append(), *due, stream_);
        }
    }

    void commit(CudaPass& pass) override {
        stream_.end();
        cuda::commit(pass.cache, pass.append(), stream_);
    }

private:
    // The staged rows of a layer as its q8_0 ring stores them; null for an f16 ring.
    static uint8_t* staged_blocks(const PassCache& cache, Side side, int layer) {
        const kv::CacheConfig& c = cache.config();
        uint8_t* const blocks = cache.staged_blocks(side);
        const size_t first = static_cast<size_t>(layer) * c.n_head_kv * c.n_ubatch;
        return blocks == nullptr ? nullptr : blocks + first * cache.spec(side).ring_row_bytes();
    }

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
        r.weight = rows.weight != nullptr ? device_.weights().floats(rows.weight) : nullptr;
        r.bias = rows.bias != nullptr ? device_.weights().floats(rows.bias) : nullptr;
        return r;
    }

    template <class T>
    void reserve(Buffer<T>& buffer, size_t size) {
        stream_.grow(buffer, size);
    }

    MatmulInput make_input(const Rows& host_rows, int n, std::span<const Product> products) {
        const Tensor& first = *products[0].w;
        const int n_cols = static_cast<int>(first.n_cols);
        const Rows rows = there(host_rows);
        MatmulInput input{n, n_cols, Rows::plain(rows.x), {}, nullptr, nullptr, {}};
        if (n > 1 || batch_invariant_) {
            const auto takes_lanes = [&](const Product& p) {
                const Processors& processors = device_.processors();
                return takes_lane_halves(select_matmul(p.w->type, n_cols, n, processors, batch_invariant_));
            };
            const auto make = [&](auto make_rows, Buffer<uint16_t>& to) {
                reserve(to, static_cast<size_t>(n) * n_cols);
                make_rows(rows, n, n_cols, to.data(), watch_rows(host_rows, &first), stream_);
                return to.data();
            };
            if (std::any_of(products.begin(), products.end(), takes_lanes)) {
                input.lane_halves = make(make_lane_halves, lane_x_);
            }
            if (!std::all_of(products.begin(), products.end(), takes_lanes)) {
                input.halves = make(make_halves, half_x_);
            }
            return input;
        }
        const auto takes = [&](bool codes) {
            return std::any_of(products.begin(), products.end(),
                               [&](const Product& p) { return takes_codes(p.w->type) == codes; });
        };
        const auto is_streamed = [&](const Product& p) {
            return streams(p.w->type, n_cols, device_.processors().shared_bytes);
        };
        const bool plain = rows.form == Rows::Form::plain;
        if (plain && !takes(true) && std::none_of(products.begin(), products.end(), is_streamed)) {
            return input;
        }
        input.watch = watch_rows(host_rows, &first);
        if (streams_rows(rows.form) && std::all_of(products.begin(), products.end(), is_streamed)) {
            // The kernels evaluate the token, without the latency of a kernel before them.
            input.rows = rows;
            return input;
        }
        if (takes(true)) {
            reserve(codes_, n_cols);
            reserve(code_blocks_, n_cols / 32);
            make_codes(rows, n_cols, codes_.data(), code_blocks_.data(), input.watch, stream_);
            input.codes = {codes_.data(), code_blocks_.data()};
        }
        if (!plain && takes(false)) {
            reserve(made_, n_cols);
            make_floats(rows, 1, n_cols, made_.data(), input.watch, stream_);
            input.rows = Rows::plain(made_.data());
        }
        return input;
    }

    CudaDevice& device_;
    bool batch_invariant_;
    Stream stream_;
    Buffer<int> broken_;  // see Watch
    MatmulQueue matmul_;
    AttentionQueue attention_;
    PassImages images_;
    NumericWatch watch_;  // results since begin, for finish
    // Scratch of an operation.
    Buffer<int32_t> tokens_;
    Buffer<uint16_t> half_x_;
    Buffer<uint16_t> lane_x_;
    Buffer<float> made_;    // an evaluated lazy row
    Buffer<int8_t> codes_;  // a row in 8 bits
    Buffer<float2> code_blocks_;
    SamplingTable samplings_;
    SampledTokens sampled_;
    PinnedBuffer pinned_tokens_;
    PinnedBuffer pinned_broken_;
};

}  // namespace

std::unique_ptr<CudaBackend> make_backend(CudaDevice& device, bool batch_invariant) {
    return std::make_unique<QueuedBackend>(device, batch_invariant);
}

}  // namespace lk::cuda
