#include "model/model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/finite.h"
#include "model/split_model.h"
#include "model/synthetic.h"

namespace lk {

// Finds, checks and brings in the tensors of a file.
class WeightLoader {
public:
    WeightLoader(Model& model, bool use_mmap, const std::function<bool(float)>& progress)
        : model_(model),
          file_(*model.file),
          use_mmap_(use_mmap),
          synthetic_(file_.get_bool_or("general.synthetic", false)),
          progress_(progress) {}

    bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

    Tensor matrix(const std::string& name, int64_t n_rows, int64_t n_cols) {
        const TensorInfo& info = require(name, {n_cols, n_rows});
        const WeightTypeTraits* traits = weight_type_traits(info.type);
        LK_CHECK(
            traits != nullptr, LK_UNSUPPORTED,
            "%s: tensor '%s' has type %u, which is not supported; supported are: F32, F16, BF16, Q4_0, Q4_1, Q5_0, "
            "Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K",
            file_.name().c_str(), name.c_str(), info.type);
        Tensor t;
        t.type = static_cast<WeightType>(info.type);
        t.n_cols = n_cols;
        t.n_rows = n_rows;
        t.row_bytes = static_cast<size_t>(n_cols) / traits->block_elements * traits->block_bytes;
        t.data = bring_in(info);
        t.name = info.name;
        t.layer = layer_of(info.name);
        t.operation = operation_of(info.name);
        model_.n_params += info.elements();
        bytes_by_type_[traits->name] += info.size;
        return t;
    }

    // Rows [first, first + n_rows) of a matrix, which are a matrix of their own to what is computed.
    static Tensor rows(const Tensor& whole, int64_t first, int64_t n_rows, std::string_view operation) {
        Tensor part = whole;
        part.operation = operation;
        part.data += first * whole.row_bytes;
        part.n_rows = n_rows;
        return part;
    }

    // A vector of floats, copied: the file may align it to a single byte.
    std::vector<float> vector(const std::string& name, int64_t n) {
        const TensorInfo& info = require(name, {n});
        const WeightTypeTraits* traits = weight_type_traits(info.type);
        LK_CHECK(traits != nullptr && traits->block_elements == 1, LK_UNSUPPORTED,
                 "%s: tensor '%s' must hold plain floats (F32, F16, BF16), not %s", file_.name().c_str(), name.c_str(),
                 traits != nullptr ? traits->name : std::to_string(info.type).c_str());
        std::vector<float> out(n);
        dequantize_row(static_cast<WeightType>(info.type), file_.tensor_data(info), out.data(), n);
        if (synthetic_) {
            std::fill(out.begin(), out.end(), 1.0f);
        }
        check_finite(out, name);
        model_.n_params += info.elements();
        report(info.size);
        return out;
    }

    // A matrix as floats.
    std::vector<float> floats(const std::string& name, int64_t n_rows, int64_t n_cols) {
        const Tensor t = matrix(name, n_rows, n_cols);
        std::vector<float> out(n_rows * n_cols);
        for (int64_t i = 0; i < n_rows; ++i) {
            dequantize_row(t.type, t.data + i * t.row_bytes, out.data() + i * n_cols, n_cols);
        }
        check_finite(out, name);
        return out;
    }

    // cls.output, and cls before it, of a reranker.
    RankHead rank_head() {
        RankHead head;
        const TensorInfo* out = file_.find_tensor("cls.output.weight");
        if (out == nullptr) {
            return head;
        }
        constexpr uint64_t kMostScores = 1u << 16;
        LK_CHECK(out->shape[1] >= 1 && out->shape[1] <= kMostScores, LK_BAD_FILE,
                 "%s: tensor 'cls.output.weight' has %llu rows; 1 to %llu are possible", file_.name().c_str(),
                 static_cast<unsigned long long>(out->shape[1]), static_cast<unsigned long long>(kMostScores));
        const int64_t n_embd = model_.config.n_embd;
        head.n_scores = static_cast<int>(out->shape[1]);
        head.out = floats("cls.output.weight", head.n_scores, n_embd);
        if (has("cls.output.bias")) {
            head.out_bias = vector("cls.output.bias", head.n_scores);
        }
        if (has("cls.weight")) {
            head.dense = floats("cls.weight", n_embd, n_embd);
            if (has("cls.bias")) {
                head.dense_bias = vector("cls.bias", n_embd);
            }
        }
        return head;
    }

    // name.weight, and for falcon name.bias.
    Norm norm(const std::string& name) {
        const ModelConfig& c = model_.config;
        Norm norm;
        norm.weight = vector(name + ".weight", c.n_embd);
        if (c.architecture == Architecture::falcon) {
            norm.bias = vector(name + ".bias", c.n_embd);
        }
        return norm;
    }

    // A tensor that no layer asked for is a part of the model that would be left out in silence.
    void check_all_used() const {
        for (const TensorInfo& t : file_.tensors()) {
            LK_CHECK(used_.count(t.name) != 0 || t.name.find("rotary_emb") != std::string::npos ||
                         t.name.find("attn_rot_embd") != std::string::npos,
                     LK_UNSUPPORTED, "%s: tensor %s is no part of architecture '%s' as this engine knows it",
                     file_.name().c_str(), quote_text(t.name).c_str(), model_.config.architecture_name.c_str());
        }
    }

    std::string dominant_type() const {
        std::string best;
        uint64_t most = 0;
        for (const auto& [name, bytes] : bytes_by_type_) {
            if (bytes > most) {
                most = bytes;
                best = name;
            }
        }
        return best;
    }

private:
    // "attn_q" of "blk.3.attn_q.weight".
    static std::string_view operation_of(std::string_view tensor) {
        constexpr std::string_view kSuffix = ".weight";
        if (tensor.ends_with(kSuffix)) {
            tensor.remove_suffix(kSuffix.size());
        }
        return tensor.substr(tensor.rfind('.') + 1);
    }

    // Small tensors; those of the layers' products are looked at when a product is not finite.
    void check_finite(std::span<const float> values, const std::string& name) const {
        LK_CHECK(std::all_of(values.begin(), values.end(), is_finite), LK_BAD_FILE,
                 "%s: tensor '%s' holds NaN or infinity", file_.name().c_str(), name.c_str());
    }

    const TensorInfo& require(const std::string& name, std::vector<int64_t> shape) {
        const TensorInfo* info = file_.find_tensor(name);
        LK_CHECK(info != nullptr, LK_BAD_FILE, "%s: tensor '%s' is missing", file_.name().c_str(), name.c_str());
        used_.insert(name);
        shape.resize(4, 1);
        for (int i = 0; i < 4; ++i) {
            LK_CHECK(info->shape[i] == static_cast<uint64_t>(shape[i]), LK_BAD_FILE,
                     "%s: tensor '%s' has shape [%llu, %llu, %llu, %llu]; the metadata wants [%lld, %lld, %lld, %lld]",
                     file_.name().c_str(), name.c_str(), static_cast<unsigned long long>(info->shape[0]),
                     static_cast<unsigned long long>(info->shape[1]), static_cast<unsigned long long>(info->shape[2]),
                     static_cast<unsigned long long>(info->shape[3]), static_cast<long long>(shape[0]),
                     static_cast<long long>(shape[1]), static_cast<long long>(shape[2]),
                     static_cast<long long>(shape[3]));
        }
        return *info;
    }

    // Reads the tensor's bytes, or touches its pages so that the first token does not wait for the disk.
    const uint8_t* bring_in(const TensorInfo& info) {
        constexpr uint64_t kPiece = 16u << 20;
        constexpr uint64_t kPage = 4096;
        const uint8_t* data = file_.tensor_data(info);
        uint8_t* copy = nullptr;
        if (!use_mmap_ || synthetic_) {
            model_.copies_.push_back(std::unique_ptr<uint8_t[]>(new uint8_t[info.size]));
            copy = model_.copies_.back().get();
        }
        if (synthetic_) {
            fill_synthetic(static_cast<WeightType>(info.type), used_.size(), copy, info.size);
            report(info.size);
            return copy;
        }
        for (uint64_t from = 0; from < info.size; from += kPiece) {
            const uint64_t n = std::min(kPiece, info.size - from);
            if (copy != nullptr) {
                std::memcpy(copy + from, data + from, n);
            } else {
                for (uint64_t i = 0; i < n; i += kPage) {
                    static_cast<void>(*static_cast<const volatile uint8_t*>(data + from + i));
                }
            }
            report(n);
        }
        return copy != nullptr ? copy : data;
    }

    void report(uint64_t n) {
        done_ += n;
        const float fraction =
            model_.weight_bytes > 0 ? static_cast<float>(static_cast<double>(done_) / model_.weight_bytes) : 1.0f;
        LK_CHECK(!progress_ || progress_(std::min(fraction, 1.0f)), LK_CANCELLED, "loading %s was cancelled",
                 file_.name().c_str());
    }

    Model& model_;
    const GgufFile& file_;
    bool use_mmap_;
    bool synthetic_;
    const std::function<bool(float)> progress_;
    uint64_t done_ = 0;
    std::map<std::string, uint64_t> bytes_by_type_;
    std::set<std::string> used_;
};

namespace {

// out[n_rows] = w[n_rows, x.size()] x + bias.
void multiply(std::span<const float> x, const std::vector<float>& w, const std::vector<float>& bias, float* out) {
    for (size_t i = 0; i * x.size() < w.size(); ++i) {
        out[i] = std::inner_product(x.begin(), x.end(), w.begin() + static_cast<ptrdiff_t>(i * x.size()),
                                    bias.empty() ? 0.0f : bias[i]);
    }
}

}  // namespace

void RankHead::score(std::span<const float> embedding, float* scores) const {
    if (dense.empty()) {
        multiply(embedding, out, out_bias, scores);
        return;
    }
    std::vector<float> hidden(embedding.size());
    multiply(embedding, dense, dense_bias, hidden.data());
    for (float& x : hidden) {
        x = std::tanh(x);
    }
    multiply(hidden, out, out_bias, scores);
}

uint64_t total_weight_bytes(const GgufFile& file) {
    uint64_t bytes = 0;
    for (const TensorInfo& t : file.tensors()) {
        bytes += t.size;
    }
    return bytes;
}

int layer_of(std::string_view tensor) {
    constexpr std::string_view kPrefix = "blk.";
    int layer = -1;
    if (tensor.starts_with(kPrefix)) {
        std::from_chars(tensor.data() + kPrefix.size(), tensor.data() + tensor.size(), layer);
    }
    return layer;
}

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

constexpr const char* kRopeDivisors = "rope_freqs.weight";

// Tells models apart whose caches have the same shape: names, types and sizes of tensors, all bytes of the small ones and
// a sample of the others.
uint64_t hash_weights(const GgufFile& file) {
    constexpr uint64_t kSmall = 4096;
    constexpr uint64_t kSamples = 8;
    constexpr uint64_t kSampleBytes = 64;
    Hash hash;
    for (const TensorInfo& t : file.tensors()) {
        if (t.name == kRopeDivisors) {
            continue;  // ModelKey::rope_divisors
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

// Every setting that decides which keys and values come out of the same tokens and weights.
kv::ModelKey make_model_key(const GgufFile& file, const ModelConfig& c, std::span<const float> rope_divisors) {
    const auto copy = [](const std::string& text, auto& to) { text.copy(to, sizeof(to)); };
    const RopeConfig& rope = c.rope;
    kv::ModelKey key;
    copy(c.architecture_name, key.architecture);
    key.n_head = c.n_head;
    key.window = c.window;
    key.norm_eps = c.norm_eps;
    key.synthetic = file.get_bool_or("general.synthetic", false) ? 1 : 0;
    key.rope_dims = rope.n_rot;
    key.rope_base = rope.freq_base;
    copy(rope.scaling == RopeScaling::linear ? "linear" : rope.scaling == RopeScaling::yarn ? "yarn" : "none",
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

Layer load_llama_layer(WeightLoader& loader, const ModelConfig& c, const std::string& prefix) {
    const int64_t n_q = static_cast<int64_t>(c.n_head) * c.head_size;
    const int64_t n_kv = static_cast<int64_t>(c.n_head_kv) * c.head_size;
    Layer layer;
    layer.attn_norm = loader.norm(prefix + "attn_norm");
    layer.wq = loader.matrix(prefix + "attn_q.weight", n_q, c.n_embd);
    layer.wk = loader.matrix(prefix + "attn_k.weight", n_kv, c.n_embd);
    layer.wv = loader.matrix(prefix + "attn_v.weight", n_kv, c.n_embd);
    layer.wo = loader.matrix(prefix + "attn_output.weight", c.n_embd, n_q);
    layer.ffn_norm = loader.norm(prefix + "ffn_norm");
    layer.gate = loader.matrix(prefix + "ffn_gate.weight", c.n_ff, c.n_embd);
    layer.up = loader.matrix(prefix + "ffn_up.weight", c.n_ff, c.n_embd);
    layer.down = loader.matrix(prefix + "ffn_down.weight", c.n_embd, c.n_ff);
    return layer;
}

Layer load_falcon_layer(WeightLoader& loader, const ModelConfig& c, const std::string& prefix) {
    const int64_t n_q = static_cast<int64_t>(c.n_head) * c.head_size;
    const int64_t n_kv = static_cast<int64_t>(c.n_head_kv) * c.head_size;
    Layer layer;
    layer.attn_norm = loader.norm(prefix + "attn_norm");
    if (loader.has(prefix + "attn_norm_2.weight")) {
        layer.attn_norm_2 = loader.norm(prefix + "attn_norm_2");
    }
    const Tensor qkv = loader.matrix(prefix + "attn_qkv.weight", n_q + 2 * n_kv, c.n_embd);
    layer.wq = WeightLoader::rows(qkv, 0, n_q, "attn_q");
    layer.wk = WeightLoader::rows(qkv, n_q, n_kv, "attn_k");
    layer.wv = WeightLoader::rows(qkv, n_q + n_kv, n_kv, "attn_v");
    layer.wo = loader.matrix(prefix + "attn_output.weight", c.n_embd, n_q);
    layer.up = loader.matrix(prefix + "ffn_up.weight", c.n_ff, c.n_embd);
    layer.down = loader.matrix(prefix + "ffn_down.weight", c.n_embd, c.n_ff);
    return layer;
}

}  // namespace

namespace {

// Progress from `from` to `to` of the whole.
std::function<bool(float)> part_of(const std::function<bool(float)>& progress, float from, float to) {
    if (!progress) {
        return progress;
    }
    return [=](float fraction) { return progress(from + fraction * (to - from)); };
}

// The weights and norms of the layers and outputs that the device computes.
DeviceWeights device_weights(const Model& model) {
    DeviceWeights weights;
    const auto vector = [&](const std::vector<float>& v) {
        weights.data.emplace_back(reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof(float));
    };
    const auto norm = [&](const Norm& n) {
        vector(n.weight);
        vector(n.bias);
    };
    const auto matrix = [&](const Tensor& t) { weights.data.emplace_back(t.data, t.row_bytes * t.n_rows); };
    const int n_host_layers = model.n_host_layers();
    if (n_host_layers == 0) {
        matrix(model.token_embd);
    }
    matrix(model.output);
    norm(model.output_norm);
    vector(model.rope.frequency);
    weights.rope_frequency = model.rope.frequency;
    for (const Layer& layer : std::span(model.layers).subspan(n_host_layers)) {
        for (const Norm* n : {&layer.attn_norm, &layer.attn_norm_2, &layer.ffn_norm}) {
            norm(*n);
        }
        for (const Tensor* t : {&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.gate, &layer.up, &layer.down}) {
            matrix(*t);
        }
    }
    return weights;
}

std::shared_ptr<const GgufFile> open_file(const std::string& path, std::span<const lk_metadata_override> overrides) {
    std::unique_ptr<GgufFile> file = GgufFile::open(path);
    for (const lk_metadata_override& o : overrides) {
        file->set(o);
    }
    return file;
}

}  // namespace

std::shared_ptr<const Model> Model::load_vocabulary(const std::string& path,
                                                    std::span<const lk_metadata_override> overrides) {
    return naming_file(path, [&] {
        auto model = std::make_shared<Model>();
        model->file = open_file(path, overrides);
        model->config = ModelConfig::read_metadata(*model->file);
        return std::shared_ptr<const Model>(model);
    });
}

void Model::check_complete() const {
    LK_CHECK(token_embd, LK_UNSUPPORTED,
             "%s was loaded for its vocabulary alone; load it without vocab_only to create contexts",
             file->name().c_str());
}

std::shared_ptr<const Model> Model::load(const std::string& path, bool use_mmap, int n_gpu_layers,
                                         const std::function<bool(float)>& progress,
                                         std::span<const lk_metadata_override> overrides) {
    LK_CHECK(n_gpu_layers >= -1, LK_INVALID_ARGUMENT, "n_gpu_layers is %d; it must be -1 (all) or more", n_gpu_layers);
    return naming_file(path, [&] { return load_whole(path, use_mmap, n_gpu_layers, progress, overrides); });
}

std::shared_ptr<const Model> Model::load_whole(const std::string& path, bool use_mmap, int n_gpu_layers,
                                               const std::function<bool(float)>& progress,
                                               std::span<const lk_metadata_override> overrides) {
    auto model = std::make_shared<Model>();
    model->file = open_file(path, overrides);
    model->config = ModelConfig::read(*model->file);
    model->weight_bytes = total_weight_bytes(*model->file);
    const ModelConfig& c = model->config;

    const float read = n_gpu_layers == 0 ? 1.0f : 0.1f;
    WeightLoader loader(*model, use_mmap, part_of(progress, 0, read));
    model->token_embd = loader.matrix("token_embd.weight", c.n_vocab, c.n_embd);
    for (int i = 0; i < c.n_layer; ++i) {
        const std::string prefix = "blk." + std::to_string(i) + ".";
        model->layers.push_back(c.architecture == Architecture::falcon ? load_falcon_layer(loader, c, prefix)
                                                                       : load_llama_layer(loader, c, prefix));
    }
    model->output_norm = loader.norm("output_norm");
    model->output = loader.has("output.weight") ? loader.matrix("output.weight", c.n_vocab, c.n_embd)
                                                : WeightLoader::rows(model->token_embd, 0, c.n_vocab, "output");

    // Llama 3.1 divides each frequency by a number of its own.
    std::vector<float> divisors;
    if (loader.has(kRopeDivisors)) {
        divisors = loader.vector(kRopeDivisors, c.rope.n_rot / 2);
        for (const float x : divisors) {
            LK_CHECK(x > 0, LK_BAD_FILE, "%s: tensor '%s' holds a number that is not positive", path.c_str(),
                     kRopeDivisors);
        }
    }
    model->rope = RopeTable(c.rope, divisors);
    LK_CHECK(model->rope.finite(), LK_BAD_FILE,
             "%s: the rotary frequencies are not finite; '%s.rope.freq_base', the keys of '%s.rope.scaling' and "
             "'rope_freqs.weight' give them",
             path.c_str(), c.architecture_name.c_str(), c.architecture_name.c_str());
    model->rank = loader.rank_head();
    loader.check_all_used();
    model->state = make_model_key(*model->file, c, divisors);
    model->weight_type = loader.dominant_type();
    if (n_gpu_layers != 0) {
        model->n_device_layers = device_layers(model->config.n_layer, n_gpu_layers);
        model->device = open_device(device_weights(*model), part_of(progress, read, 1));
    }
    return model;
}

}  // namespace lk
