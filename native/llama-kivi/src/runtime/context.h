// A context: a model's parts with their backends, a KV cache, and the calls that decode batches.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/memory.h"
#include "kv/split_cache.h"
#include "llama_kivi.h"
#include "model/forward.h"
#include "model/model.h"
#include "runtime/batch_plan.h"

namespace lk {

class Context {
public:
    Context(std::shared_ptr<const Model> model, const lk_context_params& params);

    const Model& model() const { return *model_; }
    const kv::SplitCache& cache() const {
        check_usable();
        return cache_;
    }

    // All or nothing: if decode throws, every sequence is unchanged, except on LK_DEVICE_ERROR. Then the device may
    // have failed while writing to the cache, so every later call throws LK_DEVICE_ERROR too.
    void decode(const lk_batch& batch);
    // Decodes and samples one token per output from its logits; keeps those that a sampling asks for.
    void decode_sample(const lk_batch& batch, std::span<const lk_sampling> samplings, int32_t* tokens);
    float* logits(uint32_t index);     // index: in the last batch; LK_INVALID_ARGUMENT unless it requested this output
    float* embedding(uint32_t index);  // the same
    void cancel() { cancelled_.store(true); }
    void cancel_reset() { cancelled_.store(false); }
    void set_threads(uint32_t n_threads);
    void observe(const Observer& observer) {
        check_usable();
        observer_ = observer;
    }

    void truncate(int32_t seq, uint32_t n_keep);
    uint32_t exact_length(int32_t seq, uint32_t n_keep) const;
    uint32_t exact_from(int32_t seq) const;
    void mark(int32_t seq);
    void drop_mark(int32_t seq, uint32_t length);
    void remove(int32_t seq, uint32_t begin, uint32_t end);
    void copy(int32_t src, int32_t dst);
    uint64_t state_size(int32_t seq) const;
    void save_state(int32_t seq, std::span<uint8_t> out) const;
    void load_state(int32_t seq, std::span<const uint8_t> data);
    void check_seq(int32_t seq) const;  // LK_INVALID_ARGUMENT unless seq is a sequence of this context

private:
    static constexpr int32_t kNone = -1;
    static constexpr int32_t kSampled = -2;

    void check_usable() const;  // LK_DEVICE_ERROR after an earlier one
    // Runs body, which may use a device; records a device failure.
    template <class F>
    auto with_device(F&& body) const;
    void call(const lk_batch& batch, std::optional<std::span<const lk_sampling>> samplings);
    float* prepare_outputs(const BatchPlan& plan);
    void run(const BatchPlan& plan, float* outputs);
    void run_pass(const BatchPlan& plan, int i, float* outputs);
    void find_outputs();
    float* output(uint32_t index);
    Memory& last_memory() { return parts_.back().backend->memory(); }  // memory of the outputs

    std::shared_ptr<const Model> model_;
    kv::SplitCache cache_;
    std::vector<ModelPart> parts_;
    bool embeddings_;  // outputs are embeddings instead of logits
    int output_size_;  // elements per output
    std::atomic<bool> cancelled_{false};
    // Device failure. The message may be empty if it could not be allocated.
    mutable bool device_failed_ = false;
    mutable std::string device_failure_;
    Observer observer_;

    BatchPlan plan_;                  // of the last call
    std::vector<int32_t> output_of_;  // [n] by batch index: row of outputs_, kNone or kSampled; empty: no outputs
    Buffer<float> outputs_;           // at least [outputs, output_size_]
    std::vector<int32_t> sampled_;    // [outputs] of the last sampling call
    std::vector<int32_t> kept_;       // [outputs] of the last sampling call: row of outputs_, or kSampled
};

}  // namespace lk
