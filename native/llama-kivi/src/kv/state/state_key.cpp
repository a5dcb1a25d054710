#include "kv/state/state_key.h"

#include <cstdint>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kv/cache.h"
#include "kv/codec/cache_types.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "llama_kivi.h"

namespace lk::kv {

namespace {

std::string text_of(int32_t number) {
    return std::to_string(number);
}

std::string text_of(float number) {
    return format("%.9g", static_cast<double>(number));
}

// A RowType as stored in a state.
enum class RowName : int32_t {};

std::string text_of(RowName row) {
    switch (static_cast<RowType>(row)) {
    case RowType::f16:
        return "f16";
    case RowType::q8_0:
        return "q8_0";
    }
    return "unknown";
}

// A padded string without its unprintable characters.
template <size_t kSize>
std::string text_of(const char (&text)[kSize]) {
    std::string out;
    for (size_t i = 0; i < kSize && text[i] != '\0'; ++i) {
        out += text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    return '"' + out + '"';
}

std::string types_of(const StateKey& key) {
    const auto name = [](int32_t type) {
        const char* known = lk_cache_type_name(static_cast<lk_cache_type>(type));
        return std::string(known != nullptr ? known : "unknown");
    };
    return name(key.type_k) + "/" + name(key.type_v);
}

// Collects differing settings. Values are compared as bytes, so a NaN equals itself.
class Differences {
public:
    template <class T>
    void compare(const char* name, const T& saved, const T& here) {
        if (std::memcmp(&saved, &here, sizeof(T)) != 0) {  // NOLINT(bugprone-suspicious-memory-comparison)
            add(name, text_of(saved), text_of(here));
        }
    }
    void add(const char* name, const std::string& saved, const std::string& here) {
        text_ += (text_.empty() ? "" : "; ") + std::string(name) + " " + saved + " in the state, " + here + " here";
    }
    bool empty() const { return text_.empty(); }
    const char* text() const { return text_.c_str(); }

private:
    std::string text_;
};

}  // namespace

StateKey make_state_key(CacheParts parts, const ModelKey& model) {
    const CacheConfig& c = parts.front()->config();
    StateKey key{};
    for (const Cache* part : parts) {
        key.n_layer += part->config().n_layer;
    }
    key.n_head_kv = c.n_head_kv;
    key.head_size = c.head_size;
    key.type_k = c.params.type_k;
    key.type_v = c.params.type_v;
    const SideSpec& k = parts.front()->spec(Side::keys);
    const SideSpec& v = parts.front()->spec(Side::values);
    key.group_k = is_kivi(c.params.type_k) ? k.format.group : 0;
    key.group_v = is_kivi(c.params.type_v) ? v.format.group : 0;
    key.residual_k = make_residual(c.params, c.params.type_k);
    key.residual_v = make_residual(c.params, c.params.type_v);
    key.sinks_k = k.sinks;
    key.sinks_v = v.sinks;
    key.refined = k.format.rows - k.format.head_size;
    key.ring_k = static_cast<int32_t>(k.format.recipe.ring);
    key.ring_v = static_cast<int32_t>(v.format.recipe.ring);
    key.key_centre = k.format.recipe.key_centre ? 1 : 0;
    key.model = model;
    return key;
}

void check_state_key(const StateKey& saved, const StateKey& here, const SettingNames& names) {
    Differences cache;
    if (saved.type_k != here.type_k || saved.type_v != here.type_v) {
        cache.add("cache type", types_of(saved), types_of(here));
    }
    cache.compare("group of keys", saved.group_k, here.group_k);
    cache.compare("group of values", saved.group_v, here.group_v);
    cache.compare("residual of keys", saved.residual_k, here.residual_k);
    cache.compare("residual of values", saved.residual_v, here.residual_v);
    cache.compare("sinks of keys", saved.sinks_k, here.sinks_k);
    cache.compare("sinks of values", saved.sinks_v, here.sinks_v);
    cache.compare("refined channels of keys", saved.refined, here.refined);
    cache.compare("ring rows of keys", RowName(saved.ring_k), RowName(here.ring_k));
    cache.compare("ring rows of values", RowName(saved.ring_v), RowName(here.ring_v));
    cache.compare("key centre", saved.key_centre, here.key_centre);
    cache.compare("reserved field of the cache", saved.reserved, here.reserved);
    LK_CHECK(cache.empty(), LK_BAD_STATE, "the saved state belongs to another kind of KV cache: %s", cache.text());

    const ModelKey& a = saved.model;
    const ModelKey& b = here.model;
    Differences shape;
    shape.compare("architecture (general.architecture)", a.architecture, b.architecture);
    shape.compare("layers (block_count)", saved.n_layer, here.n_layer);
    shape.compare("query heads (attention.head_count)", a.n_head, b.n_head);
    shape.compare("KV heads (attention.head_count_kv)", saved.n_head_kv, here.n_head_kv);
    shape.compare("head size (attention.key_length)", saved.head_size, here.head_size);
    shape.compare("reserved field", a.reserved, b.reserved);
    LK_CHECK(shape.empty(), LK_BAD_STATE, "the saved state belongs to another model: %s", shape.text());
    LK_CHECK(a.weights == b.weights, LK_BAD_STATE, "the saved state belongs to another model: the weights differ");

    Differences settings;
    settings.compare("RoPE frequency base (rope.freq_base)", a.rope_base, b.rope_base);
    settings.compare("RoPE scaling (rope.scaling.type)", a.rope_scaling, b.rope_scaling);
    settings.compare("RoPE scaling factor (rope.scaling.factor)", a.rope_factor, b.rope_factor);
    settings.compare("YaRN original context (rope.scaling.original_context_length)", a.rope_context, b.rope_context);
    settings.compare("YaRN attention factor (rope.scaling.attn_factor)", a.rope_attn_factor, b.rope_attn_factor);
    settings.compare("YaRN beta fast (rope.scaling.yarn_beta_fast)", a.rope_beta_fast, b.rope_beta_fast);
    settings.compare("YaRN beta slow (rope.scaling.yarn_beta_slow)", a.rope_beta_slow, b.rope_beta_slow);
    settings.compare("rotated elements of a head (rope.dimension_count)", a.rope_dims, b.rope_dims);
    settings.compare("sliding window (attention.sliding_window)", a.window, b.window);
    settings.compare(format("norm epsilon (%s)", names.norm_eps).c_str(), a.norm_eps, b.norm_eps);
    settings.compare("synthetic weights (general.synthetic)", a.synthetic, b.synthetic);
    LK_CHECK(settings.empty(), LK_BAD_STATE, "the saved state was made with other model settings: %s", settings.text());
    LK_CHECK(a.rope_divisors == b.rope_divisors, LK_BAD_STATE,
             "the saved state was made with other model settings: the tensor rope_freqs.weight differs");
}

}  // namespace lk::kv
