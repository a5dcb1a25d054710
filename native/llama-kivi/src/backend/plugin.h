/* The C interface between the engine and a device plugin: functions, opaque handles and plain structs. No C++ type or
 * exception crosses it, and neither side frees what the other allocated. So each can link its own C++ runtime.
 *
 * Functions that return lk_status store their error per thread; last_error and last_error_amounts return it. A
 * backend queues its work; finish waits for it. Pointers are device memory unless a comment says host. */
#ifndef LK_PLUGIN_H
#define LK_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include "llama_kivi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Changes with every change of this header; LK_ABI_VERSION covers the structs of llama_kivi.h. */
#define LK_PLUGIN_VERSION 2
/* Name of the symbol that a plugin exports: its lk_plugin. */
#define LK_PLUGIN_SYMBOL "lk_device_plugin"

typedef struct lk_plugin_device lk_plugin_device;   /* a device with a model's weights */
typedef struct lk_plugin_backend lk_plugin_backend; /* a context's queue of work on it; must not outlive the device */
typedef struct lk_plugin_pass lk_plugin_pass;       /* rows from begin to commit; must not outlive the backend */

/* Host memory. */
typedef struct lk_plugin_bytes {
    const uint8_t* data;
    size_t size;
} lk_plugin_bytes;

typedef struct lk_plugin_text {
    const char* data; /* not terminated */
    size_t size;
} lk_plugin_text;

/* data: weights and norms; operations refer to them by host address. frequency: host, [n_frequency], also part of data.
 */
typedef struct lk_plugin_weights {
    const lk_plugin_bytes* data;
    size_t n_data;
    const float* frequency; /* RoPE, radians per position of each rotated pair */
    int32_t n_frequency;
} lk_plugin_weights;

/* Called with 0..1; returns 0 to stop. */
typedef int32_t (*lk_plugin_progress)(float done, void* user_data);

/* See lk::Tensor. Copied by the call; the texts and the data stay valid with the model. */
typedef struct lk_plugin_tensor {
    const uint8_t* data; /* host */
    int64_t n_cols;
    int64_t n_rows;
    size_t row_bytes;
    lk_plugin_text name;
    lk_plugin_text operation;
    int32_t type;  /* lk::WeightType, numbered as in GGUF files */
    int32_t layer; /* -1: none */
} lk_plugin_tensor;

/* See lk::Rows. */
typedef struct lk_plugin_rows {
    const float* x;
    const float* up;
    const float* weight; /* host */
    const float* bias;   /* host */
    float eps;
    int32_t form; /* lk::Rows::Form */
} lk_plugin_rows;

typedef struct lk_plugin_product {
    lk_plugin_tensor w;
    float* y;
    int32_t add; /* 1: y += x W^T */
} lk_plugin_product;

/* Indexes of arrays that have an element per side of a cache. */
enum { LK_PLUGIN_KEYS = 0, LK_PLUGIN_VALUES = 1, LK_PLUGIN_SIDES = 2 };

/* What all sequences of a cache share; see lk::kv::CacheConfig and Cache::staged. */
typedef struct lk_plugin_cache {
    lk_cache_params params;
    int32_t n_layer;
    int32_t first_layer;
    int32_t n_head_kv;
    int32_t head_size;
    int32_t n_ctx;
    int32_t n_seq_max;
    int32_t n_ubatch;
    uint16_t* staged[LK_PLUGIN_SIDES];
    uint8_t* staged_blocks[LK_PLUGIN_SIDES];
} lk_plugin_cache;

/* See lk::kv::PageRef. */
typedef struct lk_plugin_run {
    uint8_t* block;
    int32_t count;
    int32_t first;
    int32_t frame;
} lk_plugin_run;

/* One side of a segment's sequence: state before the pass and the append's writes; see lk::kv::SideView and AppendPlan.
 * Pointers address layer 0, head 0. */
typedef struct lk_plugin_side {
    const lk_plugin_run* runs;        /* host, [n_runs]: the pages */
    const lk_plugin_run* staged_runs; /* host, [n_staged_runs]: pages that the pass writes */
    uint16_t* ring;                   /* null if the ring is q8_0 */
    uint8_t* ring_blocks;             /* of a q8_0 ring; otherwise null */
    uint16_t* sinks;
    const uint8_t* tables;  /* of runs */
    uint8_t* staged_tables; /* of staged_runs */
    int32_t n_runs;
    int32_t n_staged_runs;
    int32_t n_paged;
    int32_t n_sinks;       /* of runs */
    int32_t n_sink_rows;   /* rows in sinks; more than n_sinks with a q8_0 ring */
    int32_t n_sinks_after; /* after commit */
    int32_t ring_start;
    int32_t n_ring;
    int32_t n_leave;
    int32_t first_kept; /* rows count from the oldest in the ring */
    int32_t sink_limit;
    int32_t choose_tables; /* 1: stage_pages chooses staged_tables */
} lk_plugin_side;

/* Rows [row, row + n_rows) of a pass, which continue a sequence of `length` tokens. */
typedef struct lk_plugin_segment {
    lk_plugin_side sides[LK_PLUGIN_SIDES];
    int32_t row;
    int32_t n_rows;
    int32_t length;
} lk_plugin_segment;

/* The rows of a pass. begin copies all of it. */
typedef struct lk_plugin_pass_rows {
    lk_plugin_cache cache;
    const lk_plugin_segment* segments; /* host, [n_segments] */
    int32_t n_segments;
    const uint8_t* sink_rows[LK_PLUGIN_SIDES]; /* host, [n_ubatch]: 1 for a row that will be a sink; null: none */
} lk_plugin_pass_rows;

/* See lk::StageArgs. */
typedef struct lk_plugin_stage {
    const float* cos_sin;
    float* q;
    float* k;
    const float* v;
    int32_t layer;
    int32_t n;
    int32_t n_head;
    int32_t n_rot;
    int32_t halves; /* 1: pairs (i, i + n_rot/2) are rotated; 0: (2i, 2i+1) */
} lk_plugin_stage;

/* See lk::AttentionArgs. */
typedef struct lk_plugin_attention {
    const float* q;
    float* out;
    int32_t layer;
    int32_t n_head;
    int32_t window;
    int32_t halves;
    float scale;
} lk_plugin_attention;

typedef struct lk_plugin {
    uint32_t plugin_version; /* LK_PLUGIN_VERSION */
    uint32_t abi_version;    /* LK_ABI_VERSION */

    /* The calling thread's last error, valid until its next one. */
    const char* (*last_error)(void);
    void (*last_error_amounts)(uint64_t* needed, uint64_t* available);

    lk_status (*describe)(uint32_t index, lk_device_info* out);
    lk_status (*open)(const lk_plugin_weights* weights, lk_plugin_progress progress, void* user_data,
                      lk_plugin_device** out);
    void (*close)(lk_plugin_device* device);
    /* See lk::Device::upload. */
    lk_status (*upload)(lk_plugin_device* device, const void* host, size_t bytes);

    /* See lk::Memory. on_host 0: device memory; 1: the host memory that the device accesses fastest. */
    lk_status (*allocate)(lk_plugin_device* device, int32_t on_host, size_t bytes, void** out);
    void (*free)(lk_plugin_device* device, int32_t on_host, void* data, size_t bytes);
    lk_status (*copy)(lk_plugin_device* device, void* to, const void* from, size_t bytes);
    lk_status (*zero)(lk_plugin_device* device, void* data, size_t bytes);
    lk_status (*read)(lk_plugin_device* device, void* to_host, const void* from, size_t bytes);
    lk_status (*write)(lk_plugin_device* device, void* to, const void* from_host, size_t bytes);

    /* See lk::Backend. */
    lk_status (*check_invariant)(const lk_plugin_cache* cache); /* see lk::Device::check_invariant */
    lk_status (*create_backend)(lk_plugin_device* device, int32_t batch_invariant, lk_plugin_backend** out);
    void (*free_backend)(lk_plugin_backend* backend);
    lk_status (*begin)(lk_plugin_backend* backend, const lk_plugin_pass_rows* rows, lk_plugin_pass** out);
    void (*end)(lk_plugin_pass* pass);
    lk_status (*finish)(lk_plugin_backend* backend);
    lk_status (*embed)(lk_plugin_backend* backend, const lk_plugin_tensor* table, const int32_t* host_tokens, int32_t n,
                       float* out);
    lk_status (*make)(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n, int32_t dim, float* out);
    lk_status (*matmul)(lk_plugin_backend* backend, const lk_plugin_rows* rows, int32_t n,
                        const lk_plugin_product* products, int32_t n_products);
    lk_status (*stage)(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_stage* args);
    lk_status (*attention)(lk_plugin_backend* backend, lk_plugin_pass* pass, const lk_plugin_attention* args);
    lk_status (*sample)(lk_plugin_backend* backend, float* logits, int32_t n, int32_t n_vocab,
                        const lk_sampling* host_samplings, int32_t* host_tokens);
    lk_status (*stage_pages)(lk_plugin_backend* backend, lk_plugin_pass* pass, int32_t begin_layer, int32_t end_layer);
    /* Writes rings and sinks; the engine then counts the rows as appended. */
    lk_status (*commit)(lk_plugin_backend* backend, lk_plugin_pass* pass);
} lk_plugin;

#ifdef __cplusplus
}
#endif

#endif
