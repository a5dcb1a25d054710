#include "runtime/context.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/sampling.h"
#include "base/error.h"
#include "base/memory.h"
#include "kv/cache.h"
#include "kv/config.h"
#include "kv/split_cache.h"
#include "kv/state/state.h"
#include "kv/state/state_key.h"
#include "llama_kivi.h"
#include "model/architecture.h"
#include "model/forward.h"
#include "model/placement.h"
#include "runtime/batch_plan.h"
#include "runtime/context_params.h"

namespace lk {

namespace {

kv::CacheConfig checked_config(const Model& model, const lk_context_params& params) {
    kv::CacheConfig config = make_cache_config(model.config, params);
    if (model.placement.uses_device()) {
        check_device_cache(config);
    }
    return config;
}

// Layer ranges and memories of the cache's parts.
std::vector<kv::CachePlace> cache_places(const Model& model) {
    std::vector<kv::CachePlace> places;
    for (const LayerRange& range : model.placement.ranges()) {
        places.push_back({range.n_layer(), range.on_device ? &model.device->memory() : &host_memory()});
    }
    return places;
}

// Connects each model part to its part of the cache.
std::vector<ModelPart> make_parts(const Model& model, kv::SplitCache& cache, const lk_context_params& params) {
    std::vector<ModelPart> parts;
    const kv::CacheParts caches = cache.parts();
    for (const LayerRange& range : model.placement.ranges()) {
        if (range.on_device && params.batch_invariant != 0) {
            model.device->check_invariant(*caches[parts.size()]);
        }
        std::unique_ptr<Backend> backend = range.on_device ? model.device->make_backend(params.batch_invariant != 0)
                                                           : make_cpu_backend(static_cast<int>(params.n_threads));
        ForwardScratch scratch(model.config, cache.config().n_ubatch, backend->memory());
        parts.push_back({range.begin, range.end, std::move(backend), caches[parts.size()], std::move(scratch)});
    }
    return parts;
}

}  // namespace

Context::Context(std::shared_ptr<const Model> model, const lk_context_params& params)
    : model_((model->check_complete(), std::move(model))),
      cache_(checked_config(*model_, params), cache_places(*model_)),
      parts_(make_parts(*model_, cache_, params)),
      embeddings_(params.embeddings != 0),
      output_size_(embeddings_ ? model_->config.n_embd : model_->config.n_vocab),
      plan_(params.batch_invariant != 0 && model_->placement.uses_device()) {}

void Context::check_usable() const {
    LK_CHECK(!device_failed_, LK_DEVICE_ERROR,
             "this context is unusable because an earlier call failed on the device (%s); free it and create another",
             device_failure_.empty() ? "reason not recorded" : device_failure_.c_str());
}

// A device error may be late, caused by kernels of an earlier commit. Therefore every device error ends the context.
template <class F>
auto Context::with_device(F&& body) const {
    check_usable();
    try {
        return body();
    } catch (const Error& e) {
        if (e.status() == LK_DEVICE_ERROR) {
            device_failed_ = true;
            try {
                device_failure_ = e.what();
            } catch (const std::bad_alloc&) {
                device_failure_.clear();
            }
        }
        throw;
    }
}

void Context::set_threads(uint32_t n_threads) {
    check_usable();
    LK_CHECK(n_threads <= 1024, LK_INVALID_ARGUMENT, "n_threads is %u; at most 1024", n_threads);
    for (ModelPart& part : parts_) {
        if (!model_->placement.on_device(part.begin)) {
            part.backend = make_cpu_backend(static_cast<int>(n_threads));
        }
    }
}

void Context::check_seq(int32_t seq) const {
    check_usable();
    check_sequence(cache_, seq);
}

void Context::truncate(int32_t seq, uint32_t n_keep) {
    check_seq(seq);
    with_device([&] { cache_.truncate(seq, static_cast<int>(std::min<uint32_t>(n_keep, cache_.length(seq)))); });
}

uint32_t Context::exact_length(int32_t seq, uint32_t n_keep) const {
    check_seq(seq);
    return cache_.exact_length(seq, static_cast<int>(std::min<uint32_t>(n_keep, cache_.length(seq))));
}

uint32_t Context::exact_from(int32_t seq) const {
    check_seq(seq);
    return cache_.exact_from(seq);
}

void Context::mark(int32_t seq) {
    check_seq(seq);
    with_device([&] { cache_.mark(seq); });
}

void Context::drop_mark(int32_t seq, uint32_t length) {
    check_seq(seq);
    cache_.drop_mark(seq, static_cast<int>(std::min<uint32_t>(length, cache_.length(seq))));
}

void Context::remove(int32_t seq, uint32_t begin, uint32_t end) {
    check_seq(seq);
    const uint32_t length = cache_.length(seq);
    LK_CHECK(begin <= end, LK_INVALID_ARGUMENT, "tokens [%u, %u) cannot be removed: the end is before the beginning",
             begin, end);
    with_device([&] {
        cache_.remove(seq, static_cast<int>(std::min(begin, length)), static_cast<int>(std::min(end, length)),
                      rotation(*model_));
    });
}

uint64_t Context::state_size(int32_t seq) const {
    check_seq(seq);
    return kv::state_size(cache_.parts(), seq);
}

void Context::save_state(int32_t seq, std::span<uint8_t> out) const {
    check_seq(seq);
    with_device([&] { kv::save_state(cache_.parts(), seq, model_->state, out); });
}

void Context::load_state(int32_t seq, std::span<const uint8_t> data) {
    check_seq(seq);
    const kv::SettingNames names{.norm_eps = model_->config.architecture->norm_eps_key};
    with_device([&] { kv::load_state(cache_.parts(), seq, model_->state, data, names); });
}

void Context::copy(int32_t src, int32_t dst) {
    check_seq(src);
    check_seq(dst);
    with_device([&] { cache_.copy(src, dst); });
}

// Allocates the call's outputs: all of them if they are computed on the host, only the kept ones if on a device.
// Returns their destination; null if there are none.
float* Context::prepare_outputs(const BatchPlan& plan) {
    output_of_.reserve(plan.output_of().size());
    sampled_.resize(plan.samples() ? plan.n_outputs() : 0);
    kept_.reserve(sampled_.size());  // a failure after the last pass would come too late
    const int n = last_memory().on_host() ? plan.n_outputs() : plan.n_kept();
    if (n == 0) {
        return nullptr;
    }
    const size_t size = static_cast<size_t>(n) * output_size_;
    if (outputs_.size() < size) {
        outputs_ = Buffer<float>(last_memory().nearest_host(), size);
    }
    return outputs_.data();
}

void Context::run_pass(const BatchPlan& plan, int i, float* outputs) {
    const BatchPass pass = plan.pass(i);
    const size_t first = last_memory().on_host() ? pass.first_output : pass.first_kept;
    float* const rows = outputs != nullptr ? outputs + first * output_size_ : nullptr;
    const ForwardBatch batch{.tokens = pass.tokens,
                             .inputs = pass.inputs,
                             .segments = pass.segments,
                             .output_rows = pass.output_rows,
                             .logits = embeddings_ ? nullptr : rows,
                             .embeddings = embeddings_ ? rows : nullptr,
                             .cancelled = &cancelled_,
                             .observer = observer_,
                             .samplings = pass.samplings,
                             .sampled = plan.samples() ? sampled_.data() + pass.first_output : nullptr};
    cache_.reserve(pass.segments);
    try {
        forward(*model_, parts_, batch);
        // Commit in reverse order: only the device part, which is the last, can fail.
        for (size_t p = parts_.size(); p-- > 0;) {
            parts_[p].backend->commit(*parts_[p].pass);
        }
    } catch (...) {
        cache_.release_reserved(pass.segments);
        throw;
    }
}

void Context::run(const BatchPlan& plan, float* outputs) {
    if (plan.n_passes() == 1) {
        run_pass(plan, 0, outputs);
        return;
    }
    // A failed pass leaves the cache unchanged, but earlier passes are committed: take snapshots to restore. An empty
    // sequence is restored by truncation, without a copy of its ring.
    std::vector<int> empty;
    std::vector<std::pair<int, kv::SplitSequence>> before;
    for (int seq = 0; seq < cache_.config().n_seq_max; ++seq) {
        if (plan.rows_of(seq) > 0 && cache_.length(seq) == 0) {
            empty.push_back(seq);
        } else if (plan.rows_of(seq) > 0) {
            before.emplace_back(seq, cache_.snapshot(seq));
        }
    }
    try {
        for (int i = 0; i < plan.n_passes(); ++i) {
            run_pass(plan, i, outputs);
        }
    } catch (...) {
        for (auto& [seq, sequence] : before) {
            cache_.swap(seq, sequence);
        }
        for (const int seq : empty) {
            cache_.truncate(seq, 0);
        }
        throw;
    }
}

// samplings: none keeps the outputs.
void Context::call(const lk_batch& batch, std::optional<std::span<const lk_sampling>> samplings) {
    output_of_.clear();
    try {
        with_device([&] {
            plan_.make(batch, model_->config, cache_, samplings);
            run(plan_, prepare_outputs(plan_));
        });
    } catch (const Error& e) {
        if (e.status() == LK_CANCELLED) {
            cancelled_.store(false);
        }
        throw;
    }
}

void Context::decode(const lk_batch& batch) {
    call(batch, std::nullopt);
    find_outputs();
}

void Context::decode_sample(const lk_batch& batch, std::span<const lk_sampling> samplings, int32_t* tokens) {
    check_usable();
    LK_CHECK(!embeddings_, LK_INVALID_ARGUMENT,
             "this context computes embeddings, not logits to sample from (see lk_context_params.embeddings)");
    check_samplings(samplings, model_->config.n_vocab);
    call(batch, samplings);
    find_outputs();
    // Return tokens in batch order.
    for (const int32_t output : plan_.output_of()) {
        if (output >= 0) {
            *tokens++ = sampled_[output];
        }
    }
}

// Locates the outputs of the last call.
void Context::find_outputs() {
    output_of_.assign(plan_.output_of().begin(), plan_.output_of().end());
    if (!plan_.samples()) {
        return;
    }
    kept_.resize(plan_.n_outputs());
    int n_kept = 0;
    for (int i = 0; i < plan_.n_outputs(); ++i) {
        const bool keeps = plan_.sampling(i).keep_logits != 0;
        kept_[i] = !keeps ? kSampled : last_memory().on_host() ? i : n_kept;
        n_kept += keeps ? 1 : 0;
    }
    for (int32_t& output : output_of_) {
        output = output >= 0 ? kept_[output] : kNone;
    }
}

float* Context::output(uint32_t index) {
    check_usable();
    const char* const name = embeddings_ ? "embedding" : "logits";
    LK_CHECK(!output_of_.empty(), LK_INVALID_ARGUMENT, "there are no %s: the last lk_decode failed", name);
    LK_CHECK(index < output_of_.size(), LK_INVALID_ARGUMENT, "%s of token %u requested; the last batch had %zu tokens",
             name, index, output_of_.size());
    LK_CHECK(output_of_[index] != kSampled, LK_INVALID_ARGUMENT,
             "the last call sampled tokens: the logits of token %u were not kept (see lk_sampling.keep_logits)", index);
    LK_CHECK(output_of_[index] >= 0, LK_INVALID_ARGUMENT,
             "the last batch did not request the %s of token %u (see lk_batch.outputs)", name, index);
    return outputs_.data() + static_cast<size_t>(output_of_[index]) * output_size_;
}

float* Context::logits(uint32_t index) {
    check_usable();
    LK_CHECK(!embeddings_, LK_INVALID_ARGUMENT,
             "this context computes embeddings, not logits (see lk_context_params.embeddings)");
    return output(index);
}

float* Context::embedding(uint32_t index) {
    check_usable();
    LK_CHECK(embeddings_, LK_INVALID_ARGUMENT,
             "this context computes logits, not embeddings (see lk_context_params.embeddings)");
    return output(index);
}

}  // namespace lk
