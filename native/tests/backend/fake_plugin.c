#include "fake_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lk_plugin_device {
    int open;
};
struct lk_plugin_backend {
    lk_plugin_device* device;
};
struct lk_plugin_pass {
    lk_plugin_backend* backend;
};

fake_plugin_record fake_record;

/* The status of a call: the one that a test asked for, or LK_OK. */
static lk_status called(const char* function) {
    if (fake_record.failing == NULL || strcmp(fake_record.failing, function) != 0) {
        return LK_OK;
    }
    fake_record.failing = NULL;
    return fake_record.status;
}

static const char* last_error(void) {
    return "the fake device is tired";
}

static void last_error_amounts(uint64_t* needed, uint64_t* available) {
    *needed = 300;
    *available = 7;
}

static lk_status describe(uint32_t index, lk_device_info* out) {
    snprintf(out->name, sizeof(out->name), "fake %u", (unsigned)index);
    return called("describe");
}

static lk_status open_device(const lk_plugin_weights* weights, lk_plugin_progress progress, void* user_data,
                             lk_plugin_device** out) {
    size_t i;
    size_t bytes = 0;
    for (i = 0; i < weights->n_data; ++i) {
        bytes += weights->data[i].size;
    }
    snprintf(fake_record.text, sizeof(fake_record.text), "%d bytes, %d frequencies", (int)bytes,
             (int)weights->n_frequency);
    if (!progress(0.5f, user_data)) {
        return LK_CANCELLED;
    }
    *out = calloc(1, sizeof(lk_plugin_device));
    ++fake_record.n_devices;
    return LK_OK;
}

static void close_device(lk_plugin_device* device) {
    free(device);
    --fake_record.n_devices;
}

static lk_status upload(lk_plugin_device* device, const void* host, size_t bytes) {
    (void)device, (void)host, (void)bytes;
    return called("upload");
}

static lk_status allocate(lk_plugin_device* device, int32_t on_host, size_t bytes, void** out) {
    const lk_status status = called("allocate");
    (void)device, (void)on_host;
    if (status == LK_OK) {
        *out = calloc(1, bytes);
        ++fake_record.n_buffers;
    }
    return status;
}

static void free_memory(lk_plugin_device* device, int32_t on_host, void* data, size_t bytes) {
    (void)device, (void)on_host, (void)bytes;
    free(data);
    --fake_record.n_buffers;
}

static lk_status copy(lk_plugin_device* device, void* to, const void* from, size_t bytes) {
    (void)device;
    memcpy(to, from, bytes);
    return called("copy");
}

static lk_status zero(lk_plugin_device* device, void* data, size_t bytes) {
    (void)device;
    memset(data, 0, bytes);
    return called("zero");
}

static lk_status check_invariant(const lk_plugin_cache* cache) {
    fake_record.checked_head_size = cache->head_size;
    return called("check_invariant");
}

static lk_status create_backend(lk_plugin_device* device, int32_t batch_invariant, lk_plugin_backend** out) {
    const lk_status status = called("create_backend");
    fake_record.batch_invariant = batch_invariant;
    if (status == LK_OK) {
        *out = calloc(1, sizeof(lk_plugin_backend));
        (*out)->device = device;
        ++fake_record.n_backends;
    }
    return status;
}

static void free_backend(lk_plugin_backend* backend) {
    free(backend);
    --fake_record.n_backends;
}

static lk_status begin(lk_plugin_backend* backend, const lk_plugin_pass_rows* rows, lk_plugin_pass** out) {
    const lk_status status = called("begin");
    (void)rows;
    if (status == LK_OK) {
        *out = calloc(1, sizeof(lk_plugin_pass));
        (*out)->backend = backend;
        ++fake_record.n_passes;
        if (fake_record.n_passes > fake_record.most_passes) {
            fake_record.most_passes = fake_record.n_passes;
        }
    }
    return status;
}

static void end(lk_plugin_pass* pass) {
    free(pass);
    --fake_record.n_passes;
}

static lk_status finish(lk_plugin_backend* backend) {
    (void)backend;
    return called("finish");
}

static lk_status embed(lk_plugin_backend* backend, const lk_plugin_tensor* table, const int32_t* host_tokens, int32_t n,
                       float* out) {
    (void)backend, (void)out;
    snprintf(fake_record.text, sizeof(fake_record.text), "%.*s of %d, token %d", (int)table->name.size,
             table->name.data, (int)n, (int)host_tokens[0]);
    return called("embed");
}

static lk_status make(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n, int32_t dim, float* out) {
    (void)backend, (void)out;
    snprintf(fake_record.text, sizeof(fake_record.text), "form %d, eps %g, %d x %d", (int)rows->form, rows->eps, (int)n,
             (int)dim);
    return called("make");
}

static lk_status matmul(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n,
                        const lk_plugin_product* products, int32_t n_products) {
    int32_t i;
    int used = 0;
    (void)backend, (void)rows, (void)n;
    for (i = 0; i < n_products; ++i) {
        const lk_plugin_tensor* w = &products[i].w;
        used += snprintf(fake_record.text + used, sizeof(fake_record.text) - (size_t)used,
                         "%.*s (%.*s, layer %d, type %d, %d x %d of %d)%s ", (int)w->name.size, w->name.data,
                         (int)w->operation.size, w->operation.data, (int)w->layer, (int)w->type, (int)w->n_rows,
                         (int)w->n_cols, (int)w->row_bytes, products[i].add ? "+" : "");
    }
    return called("matmul");
}

static lk_status stage(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_stage* args) {
    (void)backend, (void)pass;
    fake_record.stage = *args;
    return called("stage");
}

static lk_status attention(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_attention* args) {
    (void)backend, (void)pass;
    fake_record.attention = *args;
    return called("attention");
}

static lk_status sample(lk_plugin_backend* backend, float* logits, int32_t n, int32_t n_vocab,
                        const lk_sampling* host_samplings, int32_t* host_tokens) {
    (void)backend, (void)logits, (void)n_vocab, (void)host_samplings;
    host_tokens[n - 1] = 17;
    return called("sample");
}

static lk_status stage_pages(lk_plugin_backend* backend, lk_plugin_pass* pass, int32_t begin_layer, int32_t end_layer) {
    (void)backend, (void)pass;
    snprintf(fake_record.text, sizeof(fake_record.text), "layers %d to %d", (int)begin_layer, (int)end_layer);
    return called("stage_pages");
}

static lk_status commit(lk_plugin_backend* backend, lk_plugin_pass* pass) {
    (void)backend, (void)pass;
    return called("commit");
}

const lk_plugin fake_plugin = {LK_PLUGIN_VERSION,
                               LK_ABI_VERSION,
                               last_error,
                               last_error_amounts,
                               describe,
                               open_device,
                               close_device,
                               upload,
                               allocate,
                               free_memory,
                               copy,
                               zero,
                               copy, /* read and write: the memory is the host's */
                               copy,
                               check_invariant,
                               create_backend,
                               free_backend,
                               begin,
                               end,
                               finish,
                               embed,
                               make,
                               matmul,
                               stage,
                               attention,
                               sample,
                               stage_pages,
                               commit};
