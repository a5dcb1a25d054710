// The plugin's table of functions: converts the structs of backend/plugin.h and turns exceptions into status codes.
#include "backend/plugin.h"

#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/cuda_pass.h"
#include "base/guard.h"

struct lk_plugin_device {
    lk_plugin_device(const lk_plugin_weights& weights, lk_plugin_progress progress, void* user_data)
        : device(weights, progress, user_data) {}

    lk::Memory& memory(bool on_host) {
        return on_host ? device.memory().nearest_host() : static_cast<lk::Memory&>(device.memory());
    }

    lk::cuda::CudaDevice device;
};

struct lk_plugin_backend {
    std::unique_ptr<lk::cuda::CudaBackend> backend;
    std::deque<lk::Tensor> tensors;          // that errors of queued work name
    std::vector<lk::Product> products = {};  // scratch of matmul
};

struct lk_plugin_pass {
    std::unique_ptr<lk::cuda::CudaPass> pass;
};

namespace lk::cuda::plugin {

namespace {

std::string_view view(const lk_plugin_text& text) {
    return {text.data, text.size};
}

// Keeps the tensor until finish or begin.
const Tensor& keep(lk_plugin_backend& backend, const lk_plugin_tensor& t) {
    return backend.tensors.emplace_back(Tensor{static_cast<WeightType>(t.type), t.data, t.n_cols, t.n_rows, t.row_bytes,
                                               view(t.name), view(t.operation), t.layer});
}

Rows rows_of(const lk_plugin_rows& r) {
    return {r.x, static_cast<Rows::Form>(r.form), r.eps, r.weight, r.bias, r.up};
}

const char* last_message() {
    return last_error();
}

void last_amounts(uint64_t* needed, uint64_t* available) {
    const ErrorAmounts amounts = last_error_amounts();
    *needed = amounts.needed;
    *available = amounts.available;
}

lk_status describe(uint32_t index, lk_device_info* out) {
    return guard([&] { *out = describe_device(index); });
}

lk_status open(const lk_plugin_weights* weights, lk_plugin_progress progress, void* user_data, lk_plugin_device** out) {
    return guard([&] { *out = new lk_plugin_device(*weights, progress, user_data); });
}

void close(lk_plugin_device* device) {
    delete device;
}

lk_status upload(lk_plugin_device* device, const void* host, size_t bytes) {
    return guard([&] { device->device.upload(host, bytes); });
}

lk_status allocate(lk_plugin_device* device, int32_t on_host, size_t bytes, void** out) {
    return guard([&] { *out = device->memory(on_host != 0).allocate(bytes); });
}

void free_memory(lk_plugin_device* device, int32_t on_host, void* data, size_t bytes) {
    device->memory(on_host != 0).free(data, bytes);
}

lk_status copy(lk_plugin_device* device, void* to, const void* from, size_t bytes) {
    return guard([&] { device->device.memory().copy(to, from, bytes); });
}

lk_status zero(lk_plugin_device* device, void* data, size_t bytes) {
    return guard([&] { device->device.memory().zero(data, bytes); });
}

lk_status read(lk_plugin_device* device, void* to_host, const void* from, size_t bytes) {
    return guard([&] { device->device.memory().read(to_host, from, bytes); });
}

lk_status write(lk_plugin_device* device, void* to, const void* from_host, size_t bytes) {
    return guard([&] { device->device.memory().write(to, from_host, bytes); });
}

lk_status check_invariant(const lk_plugin_cache* cache) {
    return guard([&] { cuda::check_invariant(PassCache(*cache)); });
}

lk_status create_backend(lk_plugin_device* device, int32_t batch_invariant, lk_plugin_backend** out) {
    return guard([&] { *out = new lk_plugin_backend{make_backend(device->device, batch_invariant != 0), {}}; });
}

void free_backend(lk_plugin_backend* backend) {
    delete backend;
}

lk_status begin(lk_plugin_backend* backend, const lk_plugin_pass_rows* rows, lk_plugin_pass** out) {
    return guard([&] {
        auto pass = std::make_unique<lk_plugin_pass>();
        pass->pass = backend->backend->begin(*rows);
        backend->tensors.clear();
        *out = pass.release();
    });
}

void end(lk_plugin_pass* pass) {
    delete pass;
}

lk_status finish(lk_plugin_backend* backend) {
    const lk_status status = guard([&] { backend->backend->finish(); });
    backend->tensors.clear();
    return status;
}

lk_status embed(lk_plugin_backend* backend, const lk_plugin_tensor* table, const int32_t* host_tokens, int32_t n,
                float* out) {
    return guard([&] { backend->backend->embed(keep(*backend, *table), host_tokens, n, out); });
}

lk_status make(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n, int32_t dim, float* out) {
    return guard([&] { backend->backend->make(rows_of(*rows), n, dim, out); });
}

lk_status matmul(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n, const lk_plugin_product* products,
                 int32_t n_products) {
    return guard([&] {
        backend->products.clear();
        for (int32_t i = 0; i < n_products; ++i) {
            backend->products.push_back({&keep(*backend, products[i].w), products[i].y, products[i].add != 0});
        }
        backend->backend->matmul(rows_of(*rows), n, backend->products);
    });
}

lk_status stage(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_stage* args) {
    return guard([&] { backend->backend->stage(*pass->pass, *args); });
}

lk_status attention(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_attention* args) {
    return guard([&] { backend->backend->attention(*pass->pass, *args); });
}

lk_status sample(lk_plugin_backend* backend, float* logits, int32_t n, int32_t n_vocab,
                 const lk_sampling* host_samplings, int32_t* host_tokens) {
    return guard([&] { backend->backend->sample(logits, n, n_vocab, host_samplings, host_tokens); });
}

lk_status stage_pages(lk_plugin_backend* backend, lk_plugin_pass* pass, int32_t begin_layer, int32_t end_layer) {
    return guard([&] { backend->backend->stage_pages(*pass->pass, {begin_layer, end_layer}); });
}

lk_status commit(lk_plugin_backend* backend, lk_plugin_pass* pass) {
    return guard([&] { backend->backend->commit(*pass->pass); });
}

}  // namespace

}  // namespace lk::cuda::plugin

extern "C" __attribute__((visibility("default"))) const lk_plugin lk_device_plugin = {
    .plugin_version = LK_PLUGIN_VERSION,
    .abi_version = LK_ABI_VERSION,
    .last_error = lk::cuda::plugin::last_message,
    .last_error_amounts = lk::cuda::plugin::last_amounts,
    .describe = lk::cuda::plugin::describe,
    .open = lk::cuda::plugin::open,
    .close = lk::cuda::plugin::close,
    .upload = lk::cuda::plugin::upload,
    .allocate = lk::cuda::plugin::allocate,
    .free = lk::cuda::plugin::free_memory,
    .copy = lk::cuda::plugin::copy,
    .zero = lk::cuda::plugin::zero,
    .read = lk::cuda::plugin::read,
    .write = lk::cuda::plugin::write,
    .check_invariant = lk::cuda::plugin::check_invariant,
    .create_backend = lk::cuda::plugin::create_backend,
    .free_backend = lk::cuda::plugin::free_backend,
    .begin = lk::cuda::plugin::begin,
    .end = lk::cuda::plugin::end,
    .finish = lk::cuda::plugin::finish,
    .embed = lk::cuda::plugin::embed,
    .make = lk::cuda::plugin::make,
    .matmul = lk::cuda::plugin::matmul,
    .stage = lk::cuda::plugin::stage,
    .attention = lk::cuda::plugin::attention,
    .sample = lk::cuda::plugin::sample,
    .stage_pages = lk::cuda::plugin::stage_pages,
    .commit = lk::cuda::plugin::commit,
};
