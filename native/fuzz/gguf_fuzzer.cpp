// Loads the input as a model, reads its metadata and decodes a few tokens.
#include <vector>

#include "fuzz.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    return lk::fuzz::mutate_gguf(data, size, max_size, seed);
}

namespace {

void look_at(const lk_gguf* gguf) {
    lk_gguf_info info;
    lk_gguf_describe(gguf, &info);
    for (uint64_t i = 0; i < info.n_entries; ++i) {
        lk_gguf_entry entry;
        if (lk_gguf_entry_at(gguf, i, &entry) == LK_OK && entry.element_type == LK_VALUE_STRING &&
            entry.type == LK_VALUE_ARRAY && entry.count > 0) {
            const char* text = nullptr;
            uint64_t length = 0;
            lk_gguf_string(gguf, entry.key, entry.count - 1, &text, &length);
        }
    }
    for (uint64_t i = 0; i < info.n_tensors; ++i) {
        lk_gguf_tensor tensor;
        lk_gguf_tensor_at(gguf, i, &tensor);
    }
}

void run(lk_model* model) {
    lk_model_info info;
    lk_model_describe(model, &info);
    look_at(lk_model_gguf(model));
    lk_context_params params = lk::fuzz::context_params(LK_CACHE_KIVI2);
    lk_context* context = nullptr;
    if (lk_context_create(model, &params, &context) != LK_OK) {
        params.cache.type_k = params.cache.type_v = LK_CACHE_F16;
        if (lk_context_create(model, &params, &context) != LK_OK) {
            return;
        }
    }
    std::vector<int32_t> tokens(70);
    for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<int32_t>(i % (info.n_vocab > 0 ? info.n_vocab : 1));
    }
    lk_batch batch{};
    batch.tokens = tokens.data();
    batch.n_tokens = static_cast<uint32_t>(tokens.size());
    lk_decode(context, &batch);
    lk_sampling sampling{};
    sampling.temperature = 0.8f;
    sampling.top_k = 40;
    sampling.top_p = 0.95f;
    sampling.draw = 0.3;
    int32_t token = 0;
    lk_decode_sample(context, &batch, &sampling, 1, &token);
    lk_context_free(context);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const lk::fuzz::MemoryFile file(data, size);
    lk_model_params params;
    lk_model_params_default(&params);
    params.use_mmap = size % 2;
    lk_model* model = nullptr;
    if (lk_model_load(file.path().c_str(), &params, &model) == LK_OK) {
        run(model);
        lk_model_free(model);
    }
    params.vocab_only = 1;
    if (lk_model_load(file.path().c_str(), &params, &model) == LK_OK) {
        look_at(lk_model_gguf(model));
        lk_model_free(model);
    }
    return 0;
}
