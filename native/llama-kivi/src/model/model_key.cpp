#include "model/model_key.h"

#include <cstddef>
#include <cstdint>
#include <span>

#include "gguf/reader.h"
#include "kv/state/state_key.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/synthetic.h"

namespace lk {

namespace {

class Hash {  // FNV-1a
public:
    void add(const void* data, size_t n) {
        for (size_t i = 0; i < n; ++i) {
            hash_ = (hash_ ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
        }
    }
    uint64_t value() const { return hash_; }

private:
    uint64_t hash_ = 0xcbf29ce484222325u;
};

// Distinguishes models with caches of equal shape: hashes the names, types and sizes of all tensors, all bytes of small
// tensors and samples of the others.
uint64_t hash_weights(const GgufFile& file) {
    constexpr uint64_t kSmall = 4096;
    constexpr uint64_t kSamples = 8;
    constexpr uint64_t kSampleBytes = 64;
    Hash hash;
    for (const TensorInfo& t : file.tensors()) {
        if (t.name == kRopeDivisors) {
            continue;  // hashed in ModelKey::rope_divisors
        }
        hash.add(t.name.data(), t.name.size());
        hash.add(&t.type, sizeof(t.type));
        hash.add(&t.size, sizeof(t.size));
        const uint8_t* const data = file.tensor_data(t);
        if (t.size <= kSmall) {
            hash.add(data, t.size);
            continue;
        }
        for (uint64_t i = 0; i < kSamples; ++i) {
            hash.add(data + (t.size - kSampleBytes) / (kSamples - 1) * i, kSampleBytes);
        }
    }
    return hash.value();
}

}  // namespace

kv::ModelKey make_model_key(const GgufFile& file, const ModelConfig& c, std::span<const float> rope_divisors) {
    const auto copy = [](const std::string& text, auto& to) { text.copy(to, sizeof(to)); };
    const RopeConfig& rope = c.rope;
    kv::ModelKey key;
    copy(c.architecture_name, key.architecture);
    key.n_head = c.n_head;
    key.window = c.window;
    key.norm_eps = c.norm_eps;
    key.synthetic = is_synthetic(file) ? 1 : 0;
    key.rope_dims = rope.n_rot;
    key.rope_base = rope.freq_base;
    copy(rope.scaling == RopeScaling::linear ? "linear"
         : rope.scaling == RopeScaling::yarn ? "yarn"
                                             : "none",
         key.rope_scaling);
    key.rope_factor = rope.factor;
    key.rope_context = rope.original_context;
    key.rope_attn_factor = rope.attn_factor;
    key.rope_beta_fast = rope.beta_fast;
    key.rope_beta_slow = rope.beta_slow;
    if (!rope_divisors.empty()) {
        Hash hash;
        hash.add(rope_divisors.data(), rope_divisors.size_bytes());
        key.rope_divisors = hash.value();
    }
    key.weights = hash_weights(file);
    return key;
}

}  // namespace lk
