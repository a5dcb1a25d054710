// C interface: describing and quantizing GGUF files.
#include <cstring>
#include <string_view>

#include "base/guard.h"
#include "c_api_types.h"
#include "gguf/text.h"
#include "model/quantize_model.h"
#include "model/split_model.h"
#include "quant/blocks.h"

namespace {

lk_gguf_entry describe(const lk::GgufEntry& entry) {
    lk_gguf_entry out{};
    out.key = entry.key.c_str();
    out.data = entry.data;
    out.count = entry.count;
    out.type = entry.type;
    out.element_type = entry.element_type;
    return out;
}

void check_index(const char* what, uint64_t index, uint64_t count) {
    LK_CHECK(index < count, LK_INVALID_ARGUMENT, "%s %llu does not exist; there are %llu, numbered from 0", what,
             static_cast<unsigned long long>(index), static_cast<unsigned long long>(count));
}

}  // namespace

lk_status lk_gguf_open(const char* path, lk_gguf** out) {
    return lk::guard([&] {
        LK_REQUIRE(out);
        *out = nullptr;
        LK_REQUIRE(path);
        *out = new lk_gguf{lk::naming_file(path, [&] { return lk::GgufFile::open(path); })};
    });
}

void lk_gguf_free(lk_gguf* gguf) {
    delete gguf;
}

lk_status lk_gguf_describe(const lk_gguf* gguf, lk_gguf_info* out) {
    return lk::guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(out);
        const lk::GgufFile& file = *gguf->file;
        lk_gguf_info info{};
        info.n_entries = file.entries().size();
        info.n_tensors = file.tensors().size();
        info.file_size = file.file_size();
        info.data_offset = file.data_offset();
        info.version = file.version();
        info.alignment = file.alignment();
        *out = info;
    });
}

lk_status lk_gguf_entry_at(const lk_gguf* gguf, uint64_t index, lk_gguf_entry* out) {
    return lk::guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(out);
        check_index("entry", index, gguf->file->entries().size());
        *out = describe(gguf->file->entries()[index]);
    });
}

lk_status lk_gguf_find(const lk_gguf* gguf, const char* key, lk_gguf_entry* out, int32_t* found) {
    return lk::guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(key);
        LK_REQUIRE(out);
        LK_REQUIRE(found);
        const lk::GgufEntry* entry = gguf->file->find(key);
        *out = entry != nullptr ? describe(*entry) : lk_gguf_entry{};
        *found = entry != nullptr ? 1 : 0;
    });
}

lk_status lk_gguf_string(const lk_gguf* gguf, const char* key, uint64_t element, const char** text, uint64_t* length) {
    return lk::guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(key);
        LK_REQUIRE(text);
        LK_REQUIRE(length);
        const lk::GgufEntry* entry = gguf->file->find(key);
        LK_CHECK(entry != nullptr, LK_INVALID_ARGUMENT, "key %s is not in '%s'", lk::quote_text(key).c_str(),
                 gguf->file->name().c_str());
        LK_CHECK(entry->type == LK_VALUE_ARRAY && entry->element_type == LK_VALUE_STRING, LK_INVALID_ARGUMENT,
                 "key %s is not an array of strings; its type is %s", lk::quote_text(key).c_str(),
                 lk::value_type_name(entry->type));
        check_index("element", element, entry->strings.size());
        const std::string_view string = entry->strings[element];
        *text = string.data();
        *length = string.size();
    });
}

lk_status lk_gguf_tensor_at(const lk_gguf* gguf, uint64_t index, lk_gguf_tensor* out) {
    return lk::guard([&] {
        LK_REQUIRE(gguf);
        LK_REQUIRE(out);
        check_index("tensor", index, gguf->file->tensors().size());
        const lk::TensorInfo& tensor = gguf->file->tensors()[index];
        const lk::WeightTypeTraits* traits = lk::weight_type_traits(tensor.type);
        lk_gguf_tensor info{};
        info.name = tensor.name.c_str();
        info.type_name = traits != nullptr ? traits->name : nullptr;
        std::memcpy(info.shape, tensor.shape, sizeof(info.shape));
        info.offset = tensor.offset;
        info.size = tensor.size;
        info.type = tensor.type;
        info.n_dims = tensor.n_dims;
        *out = info;
    });
}

void lk_quantize_params_default(lk_quantize_params* params) {
    if (params != nullptr) {
        *params = lk_quantize_params{};
        params->struct_size = sizeof(lk_quantize_params);
        params->type = "Q4_K_M";
        params->allow_requantize = 1;
    }
}

const char* lk_quantization_name(uint32_t index) {
    const std::vector<const char*>& names = lk::quantization_names();
    return index < names.size() ? names[index] : nullptr;
}

lk_status lk_quantize(const char* from, const char* to, const lk_quantize_params* params, lk_quantize_result* out) {
    return lk::guard([&] {
        LK_REQUIRE(from);
        LK_REQUIRE(to);
        LK_REQUIRE(params);
        lk::check_struct_size(params->struct_size, sizeof(lk_quantize_params), "lk_quantize_params");
        LK_REQUIRE(params->type);
        LK_CHECK(params->n_threads <= 1024, LK_INVALID_ARGUMENT, "n_threads is %u; it must be at most 1024",
                 params->n_threads);
        lk::QuantizeOptions options;
        options.type = params->type;
        options.output_type = params->output_type != nullptr ? params->output_type : "";
        options.token_embedding_type = params->token_embedding_type != nullptr ? params->token_embedding_type : "";
        options.allow_requantize = params->allow_requantize != 0;
        options.pure = params->pure != 0;
        options.n_threads = static_cast<int>(params->n_threads);
        if (params->progress != nullptr) {
            options.progress = [&](float fraction) {
                return params->progress(fraction, params->progress_user_data) != 0;
            };
        }
        const lk::QuantizeResult result = lk::quantize_model(from, to, options);
        if (params->fallback != nullptr) {
            for (const lk::QuantizeFallback& f : result.fallbacks) {
                params->fallback(f.tensor.c_str(), lk::weight_type_traits(f.wanted)->name,
                                 lk::weight_type_traits(f.given)->name, params->fallback_user_data);
            }
        }
        if (out != nullptr) {
            *out = {result.bytes_before,
                    result.bytes_after,
                    static_cast<uint32_t>(result.n_tensors),
                    static_cast<uint32_t>(result.n_converted),
                    static_cast<uint32_t>(result.fallbacks.size()),
                    static_cast<uint32_t>(result.n_requantized)};
        }
    });
}
