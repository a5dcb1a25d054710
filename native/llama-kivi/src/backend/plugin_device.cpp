#include "backend/plugin_device.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/plugin_pass.h"
#include "base/error.h"

namespace lk {

namespace {

// Throws the error of a plugin's function.
void check(const lk_plugin& plugin, lk_status status) {
    if (status == LK_OK) {
        return;
    }
    if (status == LK_OUT_OF_MEMORY) {
        throw std::bad_alloc();
    }
    uint64_t needed = 0;
    uint64_t available = 0;
    plugin.last_error_amounts(&needed, &available);
    throw Error(status, plugin.last_error(), needed, available);
}

lk_plugin_text text_of(std::string_view text) {
    return {text.data(), text.size()};
}

lk_plugin_tensor tensor_of(const Tensor& t) {
    return {
        t.data, t.n_cols, t.n_rows, t.row_bytes, text_of(t.name), text_of(t.operation), static_cast<int32_t>(t.type),
        t.layer};
}

lk_plugin_rows rows_of(const Rows& r) {
    return {r.x, r.up, r.weight, r.bias, r.eps, static_cast<int32_t>(r.form)};
}

int32_t halves_of(RopePairs pairs) {
    return pairs == RopePairs::halves ? 1 : 0;
}

class PluginMemory final : public Memory {
public:
    PluginMemory(const lk_plugin& plugin, lk_plugin_device* device, bool on_host)
        : plugin_(plugin), device_(device), on_host_(on_host) {}

    bool on_host() const override { return on_host_; }
    void* allocate(size_t bytes) override {
        void* data = nullptr;
        check(plugin_, plugin_.allocate(device_, on_host_, bytes, &data));
        return data;
    }
    void free(void* data, size_t bytes) noexcept override { plugin_.free(device_, on_host_, data, bytes); }
    void copy(void* to, const void* from, size_t bytes) override {
        if (on_host_) {
            std::memcpy(to, from, bytes);
        } else {
            check(plugin_, plugin_.copy(device_, to, from, bytes));
        }
    }
    void zero(void* data, size_t bytes) override {
        if (on_host_) {
            std::memset(data, 0, bytes);
        } else {
            check(plugin_, plugin_.zero(device_, data, bytes));
        }
    }
    void read(void* to, const void* from, size_t bytes) override {
        if (on_host_) {
            std::memcpy(to, from, bytes);
        } else {
            check(plugin_, plugin_.read(device_, to, from, bytes));
        }
    }
    void write(void* to, const void* from, size_t bytes) override {
        if (on_host_) {
            std::memcpy(to, from, bytes);
        } else {
            check(plugin_, plugin_.write(device_, to, from, bytes));
        }
    }
    Memory& nearest_host() override { return nearest_ != nullptr ? *nearest_ : *this; }
    bool pools_buffers() const override { return !on_host_; }  // a plugin pools device memory

    void set_nearest_host(Memory& memory) { nearest_ = &memory; }

private:
    const lk_plugin& plugin_;
    lk_plugin_device* device_;
    bool on_host_;
    Memory* nearest_ = nullptr;
};

class PluginPass final : public Pass {
public:
    PluginPass(const lk_plugin& plugin, kv::Cache& cache, std::span<const kv::Segment> segments)
        : Pass(cache, segments), plugin_(plugin) {}
    ~PluginPass() override { end(); }

    void end() noexcept {
        if (handle != nullptr) {
            plugin_.end(std::exchange(handle, nullptr));
        }
    }

    PluginPassRows described;
    lk_plugin_pass* handle = nullptr;

private:
    const lk_plugin& plugin_;
};

class PluginBackend final : public Backend {
public:
    PluginBackend(const lk_plugin& plugin, lk_plugin_device* device, bool batch_invariant, Memory& memory)
        : plugin_(plugin), memory_(memory) {
        check(plugin_, plugin_.create_backend(device, batch_invariant ? 1 : 0, &backend_));
    }
    ~PluginBackend() override { plugin_.free_backend(backend_); }
    PluginBackend(const PluginBackend&) = delete;
    PluginBackend& operator=(const PluginBackend&) = delete;

    Memory& memory() override { return memory_; }

    std::unique_ptr<Pass> begin(kv::Cache& cache, std::span<const kv::Segment> segments,
                                std::unique_ptr<Pass> ended) override {
        // Every pass that reaches this backend comes from here.
        std::unique_ptr<PluginPass> pass(static_cast<PluginPass*>(ended.release()));
        if (pass == nullptr) {
            pass = std::make_unique<PluginPass>(plugin_, cache, segments);
        } else {
            pass->end();  // the new pass reuses its memory
            pass->restart(cache, segments);
        }
        pass->described.describe(cache, segments);
        check(plugin_, plugin_.begin(backend_, &pass->described.rows(), &pass->handle));
        return pass;
    }

    void finish() override { check(plugin_, plugin_.finish(backend_)); }

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        const lk_plugin_tensor t = tensor_of(table);
        check(plugin_, plugin_.embed(backend_, &t, tokens, n, out));
    }

    void make(const Rows& rows, int n, int dim, float* out) override {
        const lk_plugin_rows r = rows_of(rows);
        check(plugin_, plugin_.make(backend_, &r, n, dim, out));
    }

    void matmul(const Rows& rows, int n, std::span<const Product> products) override {
        products_.clear();
        for (const Product& p : products) {
            products_.push_back({tensor_of(*p.w), p.y, p.add});
        }
        const lk_plugin_rows r = rows_of(rows);
        check(plugin_, plugin_.matmul(backend_, &r, n, products_.data(), static_cast<int32_t>(products_.size())));
    }

    void stage(const StageArgs& args) override {
        const lk_plugin_stage stage{
            args.cos_sin, args.q, args.k, args.v, args.layer, args.n, args.n_head, args.n_rot, halves_of(args.pairs)};
        check(plugin_, plugin_.stage(backend_, handle_of(args.pass, args.cache, "stage"), &stage));
    }

    void attention(const AttentionArgs& args) override {
        const lk_plugin_attention attention{
            args.q, args.out, args.layer, args.n_head, args.window, halves_of(args.rotation.pairs), args.scale};
        check(plugin_, plugin_.attention(backend_, handle_of(args.pass, args.cache, "attention"), &attention));
    }

    void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) override {
        check(plugin_, plugin_.sample(backend_, logits, n, n_vocab, samplings, tokens));
    }

    void stage_pages(Pass& pass, kv::Layers layers) override {
        lk_plugin_pass* const handle = handle_of(&pass, &pass.cache(), "stage_pages");
        check(plugin_, plugin_.stage_pages(backend_, handle, layers.begin, layers.end));
    }

    void commit(Pass& pass) override {
        check(plugin_, plugin_.commit(backend_, handle_of(&pass, &pass.cache(), "commit")));
        pass.cache().finish_append(pass.segments());
    }

private:
    static lk_plugin_pass* handle_of(Pass* pass, const kv::Cache* cache, const char* operation) {
        LK_CHECK(pass != nullptr && cache == &pass->cache(), LK_INTERNAL_ERROR,
                 "%s: the GPU needs the pass that begin returned for this cache", operation);
        return static_cast<PluginPass*>(pass)->handle;
    }

    const lk_plugin& plugin_;
    Memory& memory_;
    lk_plugin_backend* backend_ = nullptr;
    std::vector<lk_plugin_product> products_;  // scratch of matmul
};

// Wraps a progress function for C: its exception stops the plugin and is rethrown when the plugin has returned.
struct Progress {
    const std::function<bool(float)>& function;
    std::exception_ptr thrown = nullptr;

    static int32_t call(float done, void* user_data) noexcept {
        auto* const self = static_cast<Progress*>(user_data);
        try {
            return !self->function || self->function(done) ? 1 : 0;
        } catch (...) {
            self->thrown = std::current_exception();
            return 0;
        }
    }
};

class PluginDevice final : public Device {
public:
    PluginDevice(const lk_plugin& plugin, lk_plugin_device* device)
        : plugin_(plugin), device_(device), memory_(plugin, device, false), host_(plugin, device, true) {
        memory_.set_nearest_host(host_);
    }
    ~PluginDevice() override { plugin_.close(device_); }
    PluginDevice(const PluginDevice&) = delete;
    PluginDevice& operator=(const PluginDevice&) = delete;

    Memory& memory() override { return memory_; }
    std::unique_ptr<Backend> make_backend(bool batch_invariant) override {
        return std::make_unique<PluginBackend>(plugin_, device_, batch_invariant, memory_);
    }
    void check_invariant(kv::Cache& cache) const override {
        const lk_plugin_cache described = describe_cache(cache);
        check(plugin_, plugin_.check_invariant(&described));
    }
    void upload(const void* host, size_t bytes) override { check(plugin_, plugin_.upload(device_, host, bytes)); }

private:
    const lk_plugin& plugin_;
    lk_plugin_device* device_;
    PluginMemory memory_;
    PluginMemory host_;
};

}  // namespace

std::shared_ptr<Device> open_plugin_device(const lk_plugin& plugin, const DeviceWeights& weights,
                                           const std::function<bool(float)>& progress) {
    std::vector<lk_plugin_bytes> data;
    data.reserve(weights.data.size());
    for (const std::span<const uint8_t>& part : weights.data) {
        data.push_back({part.data(), part.size()});
    }
    const lk_plugin_weights all{data.data(), data.size(), weights.rope_frequency.data(),
                                static_cast<int32_t>(weights.rope_frequency.size())};
    Progress watched{progress};
    lk_plugin_device* device = nullptr;
    const lk_status status = plugin.open(&all, Progress::call, &watched, &device);
    if (watched.thrown) {
        if (device != nullptr) {
            plugin.close(device);
        }
        std::rethrow_exception(watched.thrown);
    }
    check(plugin, status);
    return std::make_shared<PluginDevice>(plugin, device);
}

lk_device_info describe_plugin_device(const lk_plugin& plugin, uint32_t index) {
    lk_device_info info{};
    check(plugin, plugin.describe(index, &info));
    return info;
}

}  // namespace lk
