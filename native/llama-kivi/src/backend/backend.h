// The operations a model is made of, with their shapes. A backend knows tensors and the cache, but no model.
// Activations and the cache lie in the backend's memory; weights, norms and token ids are named by where they lie on
// the host. A device may work on after an operation has returned, until finish.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backend/rows.h"
#include "base/memory.h"
#include "kv/cache.h"
#include "quant/blocks.h"

namespace lk {

// Query heads that one KV head may serve.
inline constexpr int kMaxHeadGroup = 128;

// A weight matrix as the file holds it: rows [n_rows, n_cols], a row being consecutive blocks.
struct Tensor {
    WeightType type = WeightType::F32;
    const uint8_t* data = nullptr;
    int64_t n_cols = 0;
    int64_t n_rows = 0;
    size_t row_bytes = 0;
    // For messages: the tensor of the file, and what is computed with it ("attn_q", "output") in which layer (-1:
    // none).
    std::string_view name = {};
    std::string_view operation = {};
    int layer = -1;

    explicit operator bool() const { return data != nullptr; }
    const float* f32() const { return reinterpret_cast<const float*>(data); }  // type F32 only
};

// One product of several that share their input: y = x W^T, or y += x W^T.
struct Product {
    const Tensor* w;  // [n_out, n_in]
    float* y;         // [n, n_out]
    bool add = false;
};

// One layer's queries, keys and values of a call's n rows.
struct StageArgs {
    kv::Cache* cache = nullptr;
    int layer = 0;
    int n = 0;
    int n_head = 0;
    int n_rot = 0;                          // elements of a head that are rotated, the first ones
    RopePairs pairs = RopePairs::adjacent;  // of those
    const float* cos_sin = nullptr;         // [n, n_rot/2, 2]
    float* q = nullptr;                     // [n, n_head, D], rotated in place
    float* k = nullptr;                     // [n, n_head_kv, D], rotated in place
    const float* v = nullptr;               // [n, n_head_kv, D]
};

struct AttentionArgs {
    const kv::Cache* cache;
    std::span<const kv::Segment> segments;
    const float* q;  // [n, n_head, D], rotated
    float* out;      // [n, n_head, D]
    int layer;
    int n_head;
    float scale;            // 1 / sqrt(D)
    kv::Rotation rotation;  // of q and of the keys
    int window;             // a query sees the keys less than `window` positions before it; 0: all of them
};

// Whoever gets NaN or infinity from an operation is told: it throws LK_NUMERIC_ERROR (backend/numeric_error.h), or, on
// a device, finish does.
class Backend {
public:
    virtual ~Backend() = default;

    virtual Memory& memory() { return host_memory(); }
    // Begins a pass over the rows of the segments, whose pages are reserved.
    virtual void begin(kv::Cache&, std::span<const kv::Segment>) {}
    // Waits until all is done. Throws what went wrong on the way.
    virtual void finish() {}

    // out[n, n_embd] = rows of the table.
    virtual void embed(const Tensor& table, const int32_t* tokens, int n, float* out) = 0;
    // out[n, dim] = the rows, of which the outputs are made.
    virtual void make(const Rows& rows, int n, int dim, float* out) = 0;
    // Every product of the rows [n, n_in]. None writes to what these are made of.
    virtual void matmul(const Rows& rows, int n, std::span<const Product> products) = 0;
    // Rotates queries and keys, and hands keys and values to the cache.
    virtual void stage(const StageArgs& args) = 0;
    // Softmax attention of each row over its sequence's cached tokens and the staged rows up to itself.
    virtual void attention(const AttentionArgs& args) = 0;
    // Draws tokens[n] from finite logits[n, n_vocab] as sample_row does; draws[n] and tokens lie on the host. tokens
    // are there after finish.
    virtual void sample(const float* logits, int n, int n_vocab, const lk_sampling& sampling, const double* draws,
                        int32_t* tokens) = 0;
    // Quantizes the rows that the segments' staged rows push out of the rings, into the reserved pages and tables,
    // which attention may read from then on; allocates what commit needs. The rows of the layers are staged. May fail,
    // and changes no sequence.
    virtual void stage_pages(kv::Cache& cache, std::span<const kv::Segment> segments, kv::Layers layers) = 0;
    // Appends the segments' rows, after stage_pages of every layer: copies rows into rings and sinks, and takes the
    // staged pages and tables over. noexcept on the CPU; an error of a device leaves sequences undefined.
    virtual void commit(kv::Cache& cache, std::span<const kv::Segment> segments) = 0;
};

}  // namespace lk
