#include "model/config.h"

#include <algorithm>
#include <cstdint>

#include "backend/backend.h"
#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/text.h"
#include "kv/codec/kivi_format.h"
#include "llama_kivi.h"
#include "model/architecture.h"
#include "model/metadata_keys.h"
#include "model/rope.h"
#include "model/split_model.h"

namespace lk {

namespace {

constexpr int kMaxLayers = 4096;
constexpr int kMaxWidth = 1 << 20;  // maximum of every dimension of a layer

RopeConfig read_rope(const GgufFile& file, const MetadataKeys& r, int head_size, int n_ctx_train) {
    RopeConfig c;
    c.n_rot = r.count_or("rope.dimension_count", kMaxWidth, head_size);
    LK_CHECK(c.n_rot % 2 == 0 && c.n_rot <= head_size, LK_BAD_FILE,
             "%s: key '%s' is %d; it must be even and at most the head size %d", file.name().c_str(),
             r.key("rope.dimension_count").c_str(), c.n_rot, head_size);
    c.freq_base = r.positive("rope.freq_base", 10000.0f);
    const std::string type =
        file.get_string_or(r.key("rope.scaling.type"), r.has("rope.scale_linear") ? "linear" : "none");
    if (type == "none") {
        return c;
    }
    c.factor = r.positive(r.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 1);
    if (type == "linear") {
        c.scaling = RopeScaling::linear;
        return c;
    }
    LK_CHECK(type == "yarn", LK_UNSUPPORTED, "%s: RoPE scaling %s is not supported; supported: none, linear, yarn",
             file.name().c_str(), quote_text(type).c_str());
    c.scaling = RopeScaling::yarn;
    c.original_context = r.count_or("rope.scaling.original_context_length", 1 << 30, n_ctx_train);
    c.attn_factor = r.positive("rope.scaling.attn_factor", 1);
    c.beta_fast = r.positive("rope.scaling.yarn_beta_fast", 32);
    c.beta_slow = r.positive("rope.scaling.yarn_beta_slow", 1);
    LK_CHECK(c.freq_base > 1, LK_BAD_FILE, "%s: key '%s' is %g; YaRN needs a value above 1", file.name().c_str(),
             r.key("rope.freq_base").c_str(), static_cast<double>(c.freq_base));
    return c;
}

// Every token of the vocabulary needs a row of token_embd. Rows beyond the vocabulary are padding.
void check_vocabulary(const GgufFile& file, const MetadataKeys& r, int n_rows) {
    const GgufEntry* model = file.find("tokenizer.ggml.model");
    const GgufEntry* tokens = file.find("tokenizer.ggml.tokens");
    const bool no_texts =
        model != nullptr && model->type == LK_VALUE_STRING && file.get_string(model->key) == "no_vocab";
    const bool has_texts = !no_texts && tokens != nullptr && tokens->type == LK_VALUE_ARRAY;
    const std::string key = has_texts ? tokens->key : r.key("vocab_size");
    const uint64_t n_tokens = has_texts ? tokens->count : file.get_u32_or(key, 0);
    LK_CHECK(n_tokens <= static_cast<uint64_t>(n_rows), LK_BAD_FILE,
             "%s: key '%s' declares %llu tokens, but tensor 'token_embd.weight' has only %d rows", file.name().c_str(),
             key.c_str(), static_cast<unsigned long long>(n_tokens), n_rows);
}

}  // namespace

ModelConfig ModelConfig::read(const GgufFile& file) {
    refuse_split(file);
    ModelConfig c;
    const char* name = file.name().c_str();
    c.architecture_name = file.get_string("general.architecture");
    c.architecture = &find_architecture(file, c.architecture_name);
    const MetadataKeys r(file, c.architecture_name);
    c.n_layer = r.count("block_count", kMaxLayers);
    c.n_embd = r.count("embedding_length", kMaxWidth);
    c.n_ff = r.uniform_count_or("feed_forward_length", kMaxWidth, 0);
    LK_CHECK(c.n_ff > 0, LK_BAD_FILE, "%s: key '%s' is missing", name, r.key("feed_forward_length").c_str());
    c.n_head = r.uniform_count_or("attention.head_count", kMaxWidth, 0);
    LK_CHECK(c.n_head > 0, LK_BAD_FILE, "%s: key '%s' is missing", name, r.key("attention.head_count").c_str());
    c.n_head_kv = r.uniform_count_or("attention.head_count_kv", kMaxWidth, c.n_head);
    c.n_ctx_train = r.count("context_length", 1 << 30);
    c.norm_eps = r.positive(c.architecture->norm_eps_key, 1e-5f);
    c.architecture->read_config(r, c);

    LK_CHECK(c.n_head % c.n_head_kv == 0, LK_BAD_FILE, "%s: %d query heads cannot share %d KV heads evenly", name,
             c.n_head, c.n_head_kv);
    LK_CHECK(c.n_head / c.n_head_kv <= kMaxHeadGroup, LK_UNSUPPORTED,
             "%s: %d query heads share a KV head; at most %d are supported", name, c.n_head / c.n_head_kv,
             kMaxHeadGroup);
    LK_CHECK(r.has("attention.key_length") || c.n_embd % c.n_head == 0, LK_BAD_FILE,
             "%s: the embedding length %d is not a multiple of the %d heads, and '%s' is missing", name, c.n_embd,
             c.n_head, r.key("attention.key_length").c_str());
    c.head_size = r.count_or("attention.key_length", kMaxWidth, std::max(1, c.n_embd / c.n_head));
    const int value_size = r.count_or("attention.value_length", kMaxWidth, c.head_size);
    LK_CHECK(value_size == c.head_size, LK_UNSUPPORTED,
             "%s: key head size %d and value head size %d are not supported; they must be equal", name, c.head_size,
             value_size);
    LK_CHECK(c.head_size % 8 == 0 && c.head_size <= kv::kMaxHeadSize, LK_UNSUPPORTED,
             "%s: head size %d is not supported; it must be a multiple of 8 up to %d", name, c.head_size,
             kv::kMaxHeadSize);

    c.rope = read_rope(file, r, c.head_size, c.n_ctx_train);
    c.window = r.count_or("attention.sliding_window", 1 << 30, 0);

    const TensorInfo* embedding = file.find_tensor("token_embd.weight");
    LK_CHECK(embedding != nullptr, LK_BAD_FILE, "%s: tensor 'token_embd.weight' is missing", name);
    LK_CHECK(embedding->shape[1] >= 1 && embedding->shape[1] <= 1u << 26, LK_BAD_FILE,
             "%s: tensor 'token_embd.weight' has %llu rows; it must have 1 to 67108864", name,
             static_cast<unsigned long long>(embedding->shape[1]));
    c.n_vocab = static_cast<int>(embedding->shape[1]);
    check_vocabulary(file, r, c.n_vocab);
    return c;
}

ModelConfig ModelConfig::read_metadata(const GgufFile& file) {
    const SplitPart part = split_part(file);
    if (part.number > 1) {  // only the first part has the metadata
        refuse_split(file);
    }
    ModelConfig c;
    c.architecture_name = file.get_string_or("general.architecture", "");
    const auto number = [&](const char* key) {
        const GgufEntry* entry = file.find(c.architecture_name + "." + key);
        return entry != nullptr && entry->type != LK_VALUE_ARRAY ? static_cast<int>(file.get_u32(entry->key)) : 0;
    };
    c.n_layer = number("block_count");
    c.n_embd = number("embedding_length");
    c.n_ff = number("feed_forward_length");
    c.n_head = number("attention.head_count");
    c.n_head_kv = number("attention.head_count_kv");
    c.n_ctx_train = number("context_length");
    const GgufEntry* tokens = file.find("tokenizer.ggml.tokens");
    c.n_vocab = tokens != nullptr && tokens->type == LK_VALUE_ARRAY ? static_cast<int>(tokens->count) : 0;
    return c;
}

}  // namespace lk
