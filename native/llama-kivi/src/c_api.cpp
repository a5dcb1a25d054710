// C interface: models and contexts. No exception leaves it.
#include <algorithm>
#include <cstring>
#include <new>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_trip.h"
#include "base/finite.h"
#include "base/guard.h"
#include "base/log.h"
#include "c_api_entry.h"
#include "c_api_types.h"
#include "runtime/memory_estimate.h"

using lk::enter;
using lk::guard;

struct lk_model {
    std::shared_ptr<const lk::Model> model;
    lk_gguf gguf;
};

namespace {

template <size_t kSize>
void copy_text(const std::string& text, char (&out)[kSize]) {
    const size_t n = std::min(text.size(), kSize - 1);
    std::memcpy(out, text.data(), n);
    out[n] = '\0';
}

}  // namespace

extern "C" {

uint32_t lk_abi_version(void) {
    return LK_ABI_VERSION;
}

const char* lk_version(void) {
    return LK_VERSION;
}

const char* lk_last_error(void) {
    return lk::last_error();
}

void lk_last_error_amounts(uint64_t* needed, uint64_t* available) {
    const lk::ErrorAmounts amounts = lk::last_error_amounts();
    if (needed != nullptr) {
        *needed = amounts.needed;
    }
    if (available != nullptr) {
        *available = amounts.available;
    }
}

void lk_log_set(lk_log_callback callback, void* user_data) {
    lk::set_log(callback, user_data);
}

const char* lk_status_name(lk_status status) {
    switch (status) {
    case LK_OK:
        return "LK_OK";
    case LK_INVALID_ARGUMENT:
        return "LK_INVALID_ARGUMENT";
    case LK_IO_ERROR:
        return "LK_IO_ERROR";
    case LK_BAD_FILE:
        return "LK_BAD_FILE";
    case LK_UNSUPPORTED:
        return "LK_UNSUPPORTED";
    case LK_OUT_OF_MEMORY:
        return "LK_OUT_OF_MEMORY";
    case LK_CACHE_FULL:
        return "LK_CACHE_FULL";
    case LK_CANCELLED:
        return "LK_CANCELLED";
    case LK_NUMERIC_ERROR:
        return "LK_NUMERIC_ERROR";
    case LK_BAD_STATE:
        return "LK_BAD_STATE";
    case LK_OUT_OF_DEVICE_MEMORY:
        return "LK_OUT_OF_DEVICE_MEMORY";
    case LK_DEVICE_ERROR:
        return "LK_DEVICE_ERROR";
    case LK_BUSY:
        return "LK_BUSY";
    case LK_INTERNAL_ERROR:
        return "LK_INTERNAL_ERROR";
    }
    return "unknown";
}

const char* lk_cache_type_name(lk_cache_type type) {
    switch (type) {
    case LK_CACHE_F16:
        return "f16";
    case LK_CACHE_KIVI4:
        return "kivi4";
    case LK_CACHE_KIVI2:
        return "kivi2";
    case LK_CACHE_KIVI4_PAPER:
        return "kivi4-paper";
    case LK_CACHE_KIVI2_PAPER:
        return "kivi2-paper";
    case LK_CACHE_Q8_0:
        return "q8_0";
    case LK_CACHE_Q4_0:
        return "q4_0";
    case LK_CACHE_F32:
        return "f32";
    case LK_CACHE_BF16:
        return "bf16";
    case LK_CACHE_Q5_1:
        return "q5_1";
    case LK_CACHE_Q5_0:
        return "q5_0";
    case LK_CACHE_Q4_1:
        return "q4_1";
    case LK_CACHE_IQ4_NL:
        return "iq4_nl";
    case LK_CACHE_KIVI3:
        return "kivi3";
    case LK_CACHE_TYPE_COUNT:
        break;
    }
    return nullptr;
}

lk_status lk_device_describe(uint32_t index, lk_device_info* out) {
    return guard([&] {
        LK_REQUIRE(out);
        *out = lk::describe_device(index);
    });
}

const char* lk_cpu_description(void) {
    const char* description = "unknown processor";
    guard([&] { description = lk::cpu_description().c_str(); });
    return description;
}

void lk_model_params_default(lk_model_params* params) {
    if (params != nullptr) {
        *params = lk_model_params{};
        params->struct_size = sizeof *params;
        params->use_mmap = 1;
    }
}

lk_status lk_model_load(const char* path, const lk_model_params* params, lk_model** out) {
    return guard([&] {
        LK_REQUIRE(path);
        LK_REQUIRE(params);
        LK_REQUIRE(out);
        lk::check_struct_size(params->struct_size, sizeof *params, "lk_model_params");
        *out = nullptr;
        std::function<bool(float)> progress;
        if (params->progress != nullptr) {
            progress = [params](float fraction) { return params->progress(fraction, params->progress_user_data) != 0; };
        }
        LK_CHECK(params->n_overrides == 0 || params->overrides != nullptr, LK_INVALID_ARGUMENT,
                 "n_overrides is %u, but overrides is NULL", params->n_overrides);
        const std::span overrides(params->overrides, params->n_overrides);
        auto model = params->vocab_only != 0
                         ? lk::Model::load_vocabulary(path, overrides)
                         : lk::Model::load(path, params->use_mmap != 0, params->n_gpu_layers, progress, overrides);
        *out = new lk_model{model, lk_gguf{model->file}};
        lk::log(LK_LOG_INFO, "%s: %s, %.1f million weights in %s, %.1f MiB, %s", path,
                model->config.architecture_name.c_str(), model->n_params / 1e6, model->weight_type.c_str(),
                model->weight_bytes / 0x1p20, params->use_mmap != 0 ? "mapped" : "read");
    });
}

void lk_model_free(lk_model* model) {
    delete model;
}

lk_status lk_model_describe(const lk_model* model, lk_model_info* out) {
    return guard([&] {
        LK_REQUIRE(model);
        LK_REQUIRE(out);
        const lk::Model& m = *model->model;
        *out = lk_model_info{};
        out->n_params = m.n_params;
        out->weight_bytes = m.weight_bytes;
        out->n_layer = m.config.n_layer;
        out->n_embd = m.config.n_embd;
        out->n_head = m.config.n_head;
        out->n_head_kv = m.config.n_head_kv;
        out->head_size = m.config.head_size;
        out->n_ff = m.config.n_ff;
        out->n_vocab = m.config.n_vocab;
        out->n_ctx_train = m.config.n_ctx_train;
        out->n_rank = m.rank.n_scores;
        out->rope_freq_base = m.config.rope.freq_base;
        copy_text(m.config.architecture_name, out->architecture);
        copy_text(m.weight_type, out->weight_type);
    });
}

const lk_gguf* lk_model_gguf(const lk_model* model) {
    return model != nullptr ? &model->gguf : nullptr;
}

void lk_context_params_default(lk_context_params* params) {
    if (params != nullptr) {
        *params = lk_context_params{};
        params->struct_size = sizeof *params;
        params->n_seq_max = 1;
        params->n_ubatch = 512;
        params->cache = {LK_CACHE_KIVI2, LK_CACHE_KIVI2, 0, 0, -1, 0, LK_ROWS_OWN, 0, 0};
    }
}

lk_status lk_context_estimate(const lk_gguf* gguf, int32_t n_gpu_layers, const lk_context_params* params,
                              lk_memory_estimate* out) {
    return guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(params);
        LK_REQUIRE(out);
        lk::check_struct_size(params->struct_size, sizeof *params, "lk_context_params");
        *out = lk::estimate_memory(*gguf->file, n_gpu_layers, *params);
    });
}

lk_status lk_context_sequence_bytes(const lk_gguf* gguf, const lk_context_params* params, uint32_t n_tokens,
                                    uint64_t* out) {
    return guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(params);
        LK_REQUIRE(out);
        lk::check_struct_size(params->struct_size, sizeof *params, "lk_context_params");
        *out = lk::estimate_sequence(*gguf->file, *params, n_tokens);
    });
}

lk_status lk_context_create(lk_model* model, const lk_context_params* params, lk_context** out) {
    return guard([&] {
        LK_REQUIRE(model);
        LK_REQUIRE(params);
        LK_REQUIRE(out);
        lk::check_struct_size(params->struct_size, sizeof *params, "lk_context_params");
        *out = nullptr;
        try {
            *out = new lk_context(model->model, *params);
        } catch (const std::bad_alloc&) {
            const lk_memory_estimate e = lk::estimate_memory(*model->gguf.file, 0, *params);
            throw lk::Error(LK_OUT_OF_MEMORY,
                            lk::format("out of memory: the context needs %llu bytes for scratch; lower n_ubatch",
                                       static_cast<unsigned long long>(e.scratch_bytes)),
                            e.scratch_bytes);
        }
        const lk::kv::CacheConfig& cache = (*out)->context.cache().config();
        lk::log(LK_LOG_INFO, "context of %d tokens in %d sequences, keys %s, values %s", cache.n_ctx, cache.n_seq_max,
                lk_cache_type_name(cache.params.type_k), lk_cache_type_name(cache.params.type_v));
    });
}

void lk_context_free(lk_context* context) {
    if (context != nullptr) {
        const lk::ContextVisit visit(context);
        context->state.fetch_or(lk::kContextFreed);
        context->context.cancel();  // a call on another thread, if any
    }
}

lk_status lk_decode(lk_context* context, const lk_batch* batch) {
    return enter(context, "lk_decode", [&](lk::Context& c) {
        LK_REQUIRE(batch);
        c.decode(*batch);
    });
}

lk_status lk_decode_sample(lk_context* context, const lk_batch* batch, const lk_sampling* samplings, uint32_t n_outputs,
                           int32_t* tokens) {
    return enter(context, "lk_decode_sample", [&](lk::Context& c) {
        LK_REQUIRE(batch);
        if (n_outputs > 0) {
            LK_REQUIRE(samplings);
            LK_REQUIRE(tokens);
        }
        c.decode_sample(*batch, std::span(samplings, n_outputs), tokens);
    });
}

lk_status lk_logits(lk_context* context, uint32_t index, float** out) {
    return enter(context, "lk_logits", [&](lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.logits(index);
    });
}

lk_status lk_embedding(lk_context* context, uint32_t index, float** out) {
    return enter(context, "lk_embedding", [&](lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.embedding(index);
    });
}

lk_status lk_rank_scores(lk_context* context, uint32_t index, float* out) {
    return enter(context, "lk_rank_scores", [&](lk::Context& c) {
        LK_REQUIRE(out);
        const lk::Model& model = c.model();
        LK_CHECK(model.rank.n_scores > 0, LK_UNSUPPORTED,
                 "%s has no tensor 'cls.output.weight': it is not a reranker and has no scores",
                 model.file->name().c_str());
        model.rank.score({c.embedding(index), static_cast<size_t>(model.config.n_embd)}, out);
        LK_CHECK(std::all_of(out, out + model.rank.n_scores, lk::is_finite), LK_NUMERIC_ERROR,
                 "cls.output gave NaN or infinity: the scores overflowed the range of floats");
    });
}

void lk_context_cancel(lk_context* context) {
    if (context != nullptr) {
        const lk::ContextVisit visit(context);
        context->context.cancel();
    }
}

void lk_context_cancel_reset(lk_context* context) {
    if (context != nullptr) {
        const lk::ContextVisit visit(context);
        context->context.cancel_reset();
    }
}

lk_status lk_context_set_threads(lk_context* context, uint32_t n_threads) {
    return enter(context, "lk_context_set_threads", [&](lk::Context& c) { c.set_threads(n_threads); });
}

lk_status lk_seq_length(const lk_context* context, int32_t seq_id, uint32_t* out) {
    return enter(context, "lk_seq_length", [&](const lk::Context& c) {
        LK_REQUIRE(out);
        c.check_seq(seq_id);
        *out = c.cache().length(seq_id);
    });
}

lk_status lk_seq_truncate(lk_context* context, int32_t seq_id, uint32_t n_keep) {
    return enter(context, "lk_seq_truncate", [&](lk::Context& c) { c.truncate(seq_id, n_keep); });
}

lk_status lk_seq_exact_from(const lk_context* context, int32_t seq_id, uint32_t* out) {
    return enter(context, "lk_seq_exact_from", [&](const lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.exact_from(seq_id);
    });
}

lk_status lk_seq_exact_length(const lk_context* context, int32_t seq_id, uint32_t n_keep, uint32_t* out) {
    return enter(context, "lk_seq_exact_length", [&](const lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.exact_length(seq_id, n_keep);
    });
}

lk_status lk_seq_mark(lk_context* context, int32_t seq_id) {
    return enter(context, "lk_seq_mark", [&](lk::Context& c) { c.mark(seq_id); });
}

lk_status lk_seq_drop_mark(lk_context* context, int32_t seq_id, uint32_t length) {
    return enter(context, "lk_seq_drop_mark", [&](lk::Context& c) { c.drop_mark(seq_id, length); });
}

lk_status lk_seq_copy(lk_context* context, int32_t src, int32_t dst) {
    return enter(context, "lk_seq_copy", [&](lk::Context& c) { c.copy(src, dst); });
}

lk_status lk_seq_remove(lk_context* context, int32_t seq_id, uint32_t begin, uint32_t end) {
    return enter(context, "lk_seq_remove", [&](lk::Context& c) { c.remove(seq_id, begin, end); });
}

lk_status lk_seq_state_size(const lk_context* context, int32_t seq_id, uint64_t* out) {
    return enter(context, "lk_seq_state_size", [&](const lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.state_size(seq_id);
    });
}

lk_status lk_seq_state_get(const lk_context* context, int32_t seq_id, void* data, uint64_t size) {
    return enter(context, "lk_seq_state_get", [&](const lk::Context& c) {
        LK_REQUIRE(data);
        c.save_state(seq_id, {static_cast<uint8_t*>(data), size});
    });
}

lk_status lk_seq_state_set(lk_context* context, int32_t seq_id, const void* data, uint64_t size) {
    return enter(context, "lk_seq_state_set", [&](lk::Context& c) {
        LK_REQUIRE(data);
        c.load_state(seq_id, {static_cast<const uint8_t*>(data), size});
    });
}

lk_status lk_cache_describe(const lk_context* context, lk_cache_usage* out) {
    return enter(context, "lk_cache_describe", [&](const lk::Context& c) {
        LK_REQUIRE(out);
        *out = c.cache().usage();
    });
}

lk_status lk_context_observe(lk_context* context, lk_observer observer, void* user_data) {
    return enter(context, "lk_context_observe", [&](lk::Context& c) { c.observe({observer, user_data}); });
}

lk_status lk_cache_round_trip(const lk_cache_params* params, uint32_t n_head_kv, uint32_t head_size, uint32_t n_tokens,
                              float* k, float* v) {
    return guard([&] {
        LK_REQUIRE(params);
        LK_REQUIRE(k);
        LK_REQUIRE(v);
        constexpr uint32_t kMostHeads = 1u << 10;
        constexpr uint32_t kMostTokens = 1u << 20;
        LK_CHECK(n_head_kv >= 1 && n_head_kv <= kMostHeads, LK_INVALID_ARGUMENT, "n_head_kv is %u; it must be 1 to %u",
                 n_head_kv, kMostHeads);
        LK_CHECK(head_size >= 1 && head_size <= lk::kv::kMaxHeadSize, LK_INVALID_ARGUMENT,
                 "head_size is %u; it must be 1 to %d", head_size, lk::kv::kMaxHeadSize);
        LK_CHECK(n_tokens >= 1 && n_tokens <= kMostTokens, LK_INVALID_ARGUMENT, "n_tokens is %u; it must be 1 to %u",
                 n_tokens, kMostTokens);
        lk::kv::CacheConfig config;
        config.n_head_kv = static_cast<int>(n_head_kv);
        config.head_size = static_cast<int>(head_size);
        config.params = *params;
        lk::cpu::round_trip(config, static_cast<int>(n_tokens), k, v);
    });
}

}  // extern "C"
