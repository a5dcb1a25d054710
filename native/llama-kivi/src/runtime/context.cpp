#include "runtime/context.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/cpu_backend.h"
#include "backend/sampling.h"
#include "base/error.h"
#include "base/finite.h"
#include "kv/state.h"
#include "runtime/context_params.h"

namespace lk {

namespace {

// The layers that the CPU computes, and those of the device.
std::vector<ModelPart> make_parts(const Model& model, kv::SplitCache& cache, int n_threads) {
    std::vector<ModelPart> parts;
    for (kv::Cache* part : cache.parts()) {
        const kv::CacheConfig& c = part->config();
        std::unique_ptr<Backend> backend =
            c.first_layer < model.n_host_layers() ? make_cpu_backend(n_threads) : model.device->make_backend();
        ForwardScratch scratch(model.config, c.n_ubatch, backend->memory());
        parts.push_back({c.first_layer, c.first_layer + c.n_layer, std::move(backend), part, std::move(scratch)});
    }
    return parts;
}

// Where the layers' parts of the cache lie.
std::vector<kv::CachePlace> cache_places(const Model& model) {
    std::vector<kv::CachePlace> places;
    if (model.n_host_layers() > 0) {
        places.push_back({model.n_host_layers(), &host_memory()});
    }
    if (model.n_device_layers > 0) {
        places.push_back({model.n_device_layers, &model.device->memory()});
    }
    return places;
}

}  // namespace

Context::Context(std::shared_ptr<const Model> model, const lk_context_params& params)
    : model_((model->check_complete(), std::move(model))),
      cache_(make_cache_config(model_->config, params), cache_places(*model_)),
      parts_(make_parts(*model_, cache_, static_cast<int>(params.n_threads))),
      embeddings_(params.embeddings != 0),
      output_size_(embeddings_ ? model_->config.n_embd : model_->config.n_vocab),
      seq_rows_(cache_.config().n_seq_max) {}

void Context::check_usable() const {
    LK_CHECK(!device_failed_, LK_DEVICE_ERROR,
             "this context is lost, because an earlier call failed on the device (%s); free it and create another",
             device_failure_.empty() ? "no reason kept" : device_failure_.c_str());
}

// Errors of a device may come late, from the kernels of an earlier commit, so each of them ends the context.
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
        if (part.begin < model_->n_host_layers()) {
            part.backend = make_cpu_backend(static_cast<int>(n_threads));
        }
    }
}

void Context::check_seq(int32_t seq) const {
    check_usable();
    LK_CHECK(seq >= 0 && seq < cache_.config().n_seq_max, LK_INVALID_ARGUMENT,
             "sequence %d does not exist; this context has sequences 0 to %d (n_seq_max)", seq,
             cache_.config().n_seq_max - 1);
}

void Context::truncate(int32_t seq, uint32_t n_keep) {
    check_seq(seq);
    cache_.truncate(seq, static_cast<int>(std::min<uint32_t>(n_keep, cache_.length(seq))));
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
    with_device([&] { kv::load_state(cache_.parts(), seq, model_->state, data); });
}

void Context::copy(int32_t src, int32_t dst) {
    check_seq(src);
    check_seq(dst);
    with_device([&] { cache_.copy(src, dst); });
}

// Checks the batch and fills order_, tokens_, seqs_, output_of_ and outputs_.
void Context::order_rows(const lk_batch& batch) {
    const int n = static_cast<int>(batch.n_tokens);
    const int n_vocab = model_->config.n_vocab;
    std::fill(seq_rows_.begin(), seq_rows_.end(), 0);
    seqs_.resize(n);
    bool sorted = true;
    for (int i = 0; i < n; ++i) {
        const int32_t seq = batch.seq_ids != nullptr ? batch.seq_ids[i] : 0;
        check_seq(seq);
        LK_CHECK(batch.tokens == nullptr || (batch.tokens[i] >= 0 && batch.tokens[i] < n_vocab), LK_INVALID_ARGUMENT,
                 "token %d of the batch is %d; this model's tokens are 0 to %d", i, batch.tokens[i], n_vocab - 1);
        const int next = cache_.length(seq) + seq_rows_[seq]++;
        LK_CHECK(batch.pos == nullptr || batch.pos[i] == next, LK_INVALID_ARGUMENT,
                 "token %d of the batch has position %d; sequence %d continues at position %d", i, batch.pos[i], seq,
                 next);
        sorted = sorted && (i == 0 || seqs_[i - 1] <= seq);
        seqs_[i] = seq;
    }
    order_.resize(n);
    std::iota(order_.begin(), order_.end(), 0);
    if (!sorted) {
        std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) { return seqs_[a] < seqs_[b]; });
        std::stable_sort(seqs_.begin(), seqs_.end());
    }
    tokens_.resize(n);
    const size_t n_embd = model_->config.n_embd;
    inputs_.resize(batch.embeddings != nullptr ? n * n_embd : 0);
    for (int i = 0; i < n; ++i) {
        if (batch.embeddings != nullptr) {
            const float* const row = batch.embeddings + order_[i] * n_embd;
            const float* const broken = std::find_if_not(row, row + n_embd, is_finite);
            LK_CHECK(broken == row + n_embd, LK_NUMERIC_ERROR, "element %td of embedding %d of the batch is %s",
                     broken - row, order_[i], std::isnan(*broken) ? "NaN" : "infinite");
            std::copy_n(row, n_embd, inputs_.data() + i * n_embd);
        } else {
            tokens_[i] = batch.tokens[order_[i]];
        }
    }
    output_of_.assign(n, -1);
    int n_outputs = 0;
    for (int i = 0; i < n; ++i) {
        const int index = order_[i];
        if (batch.outputs != nullptr ? batch.outputs[index] != 0 : index == n - 1) {
            output_of_[index] = n_outputs++;
        }
    }
    if (sampling_ != nullptr) {
        sampled_.resize(n_outputs);
    }
    const bool stay = sampling_ != nullptr && !last_memory().on_host();  // the logits, on the device
    const size_t size = stay ? 0 : static_cast<size_t>(n_outputs) * output_size_;
    if (outputs_.size() < size) {
        outputs_ = Buffer<float>(last_memory().nearest_host(), size);
    }
}

// Rows [begin, end) in one pass.
void Context::run_rows(int begin, int end) {
    segments_.clear();
    output_rows_.clear();
    draws_.clear();
    int first_output = 0;
    for (int i = begin; i < end; ++i) {
        if (segments_.empty() || segments_.back().seq != seqs_[i]) {
            segments_.push_back({seqs_[i], i - begin, 0});
        }
        ++segments_.back().n_rows;
        const int32_t output = output_of_[order_[i]];
        if (output >= 0) {
            first_output = output_rows_.empty() ? output : first_output;
            output_rows_.push_back(i - begin);
            if (sampling_ != nullptr) {
                const int position = cache_.length(seqs_[i]) + segments_.back().n_rows;
                draws_.push_back(uniform_draw(sampling_->seed, seqs_[i], static_cast<uint32_t>(position)));
            }
        }
    }
    const size_t n_embd = model_->config.n_embd;
    float* const outputs =
        outputs_.size() > 0 ? outputs_.data() + static_cast<size_t>(first_output) * output_size_ : nullptr;
    const ForwardBatch batch{.tokens = std::span(tokens_).subspan(begin, end - begin),
                             .inputs = inputs_.empty() ? nullptr : inputs_.data() + begin * n_embd,
                             .segments = segments_,
                             .output_rows = output_rows_,
                             .logits = embeddings_ ? nullptr : outputs,
                             .embeddings = embeddings_ ? outputs : nullptr,
                             .cancelled = &cancelled_,
                             .observer = observer_,
                             .sampling = sampling_,
                             .draws = draws_.data(),
                             .sampled = sampling_ == nullptr ? nullptr : sampled_.data() + first_output};
    cache_.reserve(segments_);
    try {
        forward(*model_, parts_, batch);
        for (const ModelPart& part : parts_) {
            part.backend->prepare_commit(*part.cache, segments_);
        }
        // A device's part is the last and may fail: it goes first.
        for (size_t i = parts_.size(); i-- > 0;) {
            parts_[i].backend->commit(*parts_[i].cache, segments_);
        }
    } catch (...) {
        cache_.release_reserved(segments_);
        throw;
    }
}

void Context::run(const lk_batch& batch) {
    LK_CHECK(batch.n_tokens > 0, LK_INVALID_ARGUMENT, "the batch is empty");
    LK_CHECK((batch.tokens != nullptr) != (batch.embeddings != nullptr), LK_INVALID_ARGUMENT,
             "batch.tokens and batch.embeddings are %s; one must be NULL",
             batch.tokens == nullptr ? "NULL" : "both given");
    LK_CHECK(batch.n_tokens <= 1u << 30, LK_INVALID_ARGUMENT, "the batch has %u tokens; at most 2^30", batch.n_tokens);
    cache_.check_room(batch.n_tokens);
    order_rows(batch);
    const int n = static_cast<int>(batch.n_tokens);
    const int n_ubatch = cache_.config().n_ubatch;
    if (n <= n_ubatch) {
        run_rows(0, n);
        return;
    }
    // A pass that fails leaves the cache alone, but the passes before it are in: keep a way back. A sequence that was
    // empty needs no copy of its ring.
    std::vector<int> empty;
    std::vector<std::pair<int, kv::SplitSequence>> before;
    for (int seq = 0; seq < cache_.config().n_seq_max; ++seq) {
        if (seq_rows_[seq] > 0 && cache_.length(seq) == 0) {
            empty.push_back(seq);
        } else if (seq_rows_[seq] > 0) {
            before.emplace_back(seq, cache_.snapshot(seq));
        }
    }
    try {
        for (int begin = 0; begin < n; begin += n_ubatch) {
            run_rows(begin, std::min(n, begin + n_ubatch));
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

void Context::decode(const lk_batch& batch) {
    try {
        with_device([&] { run(batch); });
    } catch (const Error& e) {
        output_of_.clear();
        if (e.status() == LK_CANCELLED) {
            cancelled_.store(false);
        }
        throw;
    } catch (...) {
        output_of_.clear();
        throw;
    }
}

void Context::decode_sample(const lk_batch& batch, const lk_sampling& sampling, int32_t* tokens) {
    check_usable();
    LK_CHECK(!embeddings_, LK_INVALID_ARGUMENT,
             "this context gives embeddings and no logits to draw from (see lk_context_params.embeddings)");
    check_sampling(sampling);
    sampling_ = &sampling;
    try {
        decode(batch);
    } catch (...) {
        sampling_ = nullptr;
        throw;
    }
    sampling_ = nullptr;
    // In the batch's order.
    for (const int32_t output : output_of_) {
        if (output >= 0) {
            *tokens++ = sampled_[output];
        }
    }
    output_of_.clear();
}

float* Context::output(uint32_t index) {
    check_usable();
    const char* const name = embeddings_ ? "embedding" : "logits";
    LK_CHECK(!output_of_.empty(), LK_INVALID_ARGUMENT,
             "there are no %s: the last lk_decode failed, or drew tokens instead", name);
    LK_CHECK(index < output_of_.size(), LK_INVALID_ARGUMENT, "%s of token %u asked for; the last batch had %zu tokens",
             name, index, output_of_.size());
    LK_CHECK(output_of_[index] >= 0, LK_INVALID_ARGUMENT,
             "the last batch did not ask for the %s of token %u (see lk_batch.outputs)", name, index);
    return outputs_.data() + static_cast<size_t>(output_of_[index]) * output_size_;
}

float* Context::logits(uint32_t index) {
    check_usable();
    LK_CHECK(!embeddings_, LK_INVALID_ARGUMENT,
             "this context gives embeddings and no logits (see lk_context_params.embeddings)");
    return output(index);
}

float* Context::embedding(uint32_t index) {
    check_usable();
    LK_CHECK(embeddings_, LK_INVALID_ARGUMENT,
             "this context gives logits and no embeddings (see lk_context_params.embeddings)");
    return output(index);
}

}  // namespace lk
