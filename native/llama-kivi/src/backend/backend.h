// The operations of a model and their shapes. A backend knows tensors and the cache, but no model.
// Activations and the cache are in the backend's memory. Weights, norms and token ids are passed as host pointers,
// which a device backend maps to its own copies. On a device, operations are asynchronous until finish.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backend/rows.h"
#include "base/memory.h"
#include "kv/cache.h"
#include "quant/blocks.h"

namespace lk {

// Limit of query heads per KV head.
inline constexpr int kMaxHeadGroup = 128;

// A weight matrix as stored in the file: [n_rows, n_cols], each row consecutive blocks.
struct Tensor {
    WeightType type = WeightType::F32;
    const uint8_t* data = nullptr;
    int64_t n_cols = 0;
    int64_t n_rows = 0;
    size_t row_bytes = 0;
    // For messages: name of the tensor in the file, operation that uses it ("attn_q", "output"), layer (-1: none).
    std::string_view name = {};
    std::string_view operation = {};
    int layer = -1;

    explicit operator bool() const { return data != nullptr; }
    const float* f32() const { return reinterpret_cast<const float*>(data); }  // type F32 only
};

// One matmul of several with the same input: y = x W^T, or y += x W^T.
struct Product {
    const Tensor* w;  // [n_out, n_in]
    float* y;         // [n, n_out]
    bool add = false;
};

class Pass;

// Queries, keys and values of one layer, for the n rows of a pass.
struct StageArgs {
    kv::Cache* cache = nullptr;
    int layer = 0;
    int n = 0;
    int n_head = 0;
    int n_rot = 0;                          // the first n_rot elements of each head are rotated
    RopePairs pairs = RopePairs::adjacent;  // which of them form pairs
    const float* cos_sin = nullptr;         // [n, n_rot/2, 2]
    float* q = nullptr;                     // [n, n_head, D], rotated in place
    float* k = nullptr;                     // [n, n_head_kv, D], rotated in place
    const float* v = nullptr;               // [n, n_head_kv, D]
    Pass* pass = nullptr;                   // of these rows; a device needs it
};

// One pass: the rows of some segments, from begin to commit. A backend derives its own type, which holds what it plans
// for the pass.
class Pass {
public:
    Pass(kv::Cache& cache, std::span<const kv::Segment> segments) { restart(cache, segments); }
    virtual ~Pass() = default;
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

    kv::Cache& cache() const { return *cache_; }
    std::span<const kv::Segment> segments() const { return segments_; }

    // Makes it a pass over other rows, in the same memory.
    void restart(kv::Cache& cache, std::span<const kv::Segment> segments) {
        cache_ = &cache;
        segments_.assign(segments.begin(), segments.end());
    }

private:
    kv::Cache* cache_ = nullptr;
    std::vector<kv::Segment> segments_;
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
    int window;             // a query attends to keys less than `window` positions before it; 0: to all
    Pass* pass = nullptr;   // of these segments; a device needs it
};

// An operation whose result is NaN or infinite throws LK_NUMERIC_ERROR (backend/numeric_error.h); on a device, finish
// throws it.
class Backend {
public:
    virtual ~Backend() = default;

    virtual Memory& memory() { return host_memory(); }
    // Begins a pass over the rows of the segments. Their pages are reserved. The pass is valid until its commit or
    // until the cache changes otherwise; it must not outlive the backend. ended: an earlier pass of this backend, whose
    // memory may be reused; nothing else of it is.
    virtual std::unique_ptr<Pass> begin(kv::Cache& cache, std::span<const kv::Segment> segments,
                                        std::unique_ptr<Pass> ended) {
        if (ended == nullptr) {
            return std::make_unique<Pass>(cache, segments);
        }
        ended->restart(cache, segments);
        return ended;
    }
    // Waits for all queued work and throws its first error.
    virtual void finish() {}

    // Writes rows of the table to out[n, n_embd].
    virtual void embed(const Tensor& table, const int32_t* tokens, int n, float* out) = 0;
    // Evaluates lazy rows into out[n, dim].
    virtual void make(const Rows& rows, int n, int dim, float* out) = 0;
    // Multiplies the rows [n, n_in] by the matrix of every product. No product may write to the inputs of the rows.
    virtual void matmul(const Rows& rows, int n, std::span<const Product> products) = 0;
    // Rotates queries and keys, and writes keys and values to the cache's staging buffer.
    virtual void stage(const StageArgs& args) = 0;
    // Softmax attention of each row over the cached tokens of its sequence and its staged rows up to this row. Which
    // tokens it reads from pages, staged ones included, depends on its position (kv::Visibility).
    virtual void attention(const AttentionArgs& args) = 0;
    // Samples tokens[n] from finite logits[n, n_vocab] as sample_row does, which changes the logits; -1 for rows with
    // keep_logits, which stay unchanged. samplings[n] and tokens are host memory; tokens are valid after finish.
    virtual void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) = 0;
    // Quantizes the rows that leave the rings into the reserved pages and tables, which attention may read from then
    // on, and allocates what commit needs. The rows of these layers must be staged. May fail; changes no sequence.
    virtual void stage_pages(Pass& pass, kv::Layers layers) = 0;
    // Appends the pass's rows after stage_pages of every layer: copies rows into rings and sinks and adds the staged
    // pages and tables to the sequences. noexcept on the CPU; a device error leaves the sequences undefined.
    virtual void commit(Pass& pass) = 0;
};

}  // namespace lk
