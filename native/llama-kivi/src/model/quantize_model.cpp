#include "model/quantize_model.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"
#include "base/processors.h"
#include "base/thread_pool.h"
#include "gguf/reader.h"
#include "gguf/text.h"
#include "gguf/writer.h"
#include "llama_kivi.h"
#include "model/split_model.h"
#include "quant/blocks.h"
#include "quant/quantize.h"

namespace lk {

namespace {

using enum WeightType;

enum class Size { plain, small, medium, large };

// A file type: `base` for most matrices, more bits for sensitive ones.
struct Mix {
    const char* name;
    uint32_t file_type;  // value of general.file_type
    WeightType base;
    Size size;
};

constexpr Mix kMixes[] = {
    {"F32", 0, F32, Size::plain},       {"F16", 1, F16, Size::plain},       {"BF16", 32, BF16, Size::plain},
    {"Q4_0", 2, Q4_0, Size::plain},     {"Q4_1", 3, Q4_1, Size::plain},     {"Q5_0", 8, Q5_0, Size::plain},
    {"Q5_1", 9, Q5_1, Size::plain},     {"Q8_0", 7, Q8_0, Size::plain},     {"Q2_K", 10, Q2_K, Size::medium},
    {"Q3_K_S", 11, Q3_K, Size::small},  {"Q3_K_M", 12, Q3_K, Size::medium}, {"Q3_K_L", 13, Q3_K, Size::large},
    {"Q4_K_S", 14, Q4_K, Size::small},  {"Q4_K_M", 15, Q4_K, Size::medium}, {"Q5_K_S", 16, Q5_K, Size::small},
    {"Q5_K_M", 17, Q5_K, Size::medium}, {"Q6_K", 18, Q6_K, Size::plain},
};

std::string upper(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::toupper(c); });
    return out;
}

const Mix& find_mix(std::string_view name) {
    std::string wanted = upper(name);
    if (wanted == "Q3_K" || wanted == "Q4_K" || wanted == "Q5_K") {
        wanted += "_M";
    }
    std::string known;
    for (const Mix& mix : kMixes) {
        if (wanted == mix.name) {
            return mix;
        }
        known += (known.empty() ? "" : ", ") + std::string(mix.name);
    }
    LK_FAIL(LK_INVALID_ARGUMENT, "type '%s' is not known; use one of %s", std::string(name).c_str(), known.c_str());
}

WeightType find_type(const char* what, std::string_view name) {
    std::string known;
    for (uint32_t number = 0; number <= static_cast<uint32_t>(BF16); ++number) {
        const WeightTypeTraits* traits = weight_type_traits(number);
        if (traits != nullptr && upper(name) == traits->name) {
            return static_cast<WeightType>(number);
        }
        known += traits == nullptr ? "" : (known.empty() ? "" : ", ") + std::string(traits->name);
    }
    LK_FAIL(LK_INVALID_ARGUMENT, "%s '%s' is not known; use one of %s", what, std::string(name).c_str(), known.c_str());
}

bool is_float(WeightType type) {
    return type == F32 || type == F16 || type == BF16;
}

// A tensor's role, parsed from its name: "blk.3.attn_v.weight" is attn_v of layer 3.
struct Role {
    std::string_view name;  // "attn_v"
    int layer = -1;         // -1 for "output" and "token_embd"
};

std::optional<Role> role_of(std::string_view tensor) {
    constexpr std::string_view kWeight = ".weight";
    if (!tensor.ends_with(kWeight)) {
        return std::nullopt;
    }
    tensor.remove_suffix(kWeight.size());
    Role role;
    if (tensor.starts_with("blk.")) {
        tensor.remove_prefix(4);
        role.layer = 0;
        while (!tensor.empty() && std::isdigit(static_cast<unsigned char>(tensor[0])) && role.layer < 100000) {
            role.layer = role.layer * 10 + (tensor[0] - '0');
            tensor.remove_prefix(1);
        }
        if (!tensor.starts_with('.')) {
            return std::nullopt;
        }
        tensor.remove_prefix(1);
    }
    role.name = tensor;
    return role;
}

// Chooses the types of a model's tensors under a mix. The mixes are llama.cpp's, so a mix gives the same file size in
// both: https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md
class TypeChooser {
public:
    TypeChooser(const GgufFile& file, const QuantizeOptions& options)
        : mix_(find_mix(options.type)), pure_(options.pure) {
        if (!options.output_type.empty()) {
            output_ = find_type("the output matrix's type", options.output_type);
        }
        if (!options.token_embedding_type.empty()) {
            embedding_ = find_type("the token embedding's type", options.token_embedding_type);
        }
        falcon_ = file.get_string_or("general.architecture", "") == "falcon";
        tied_ = file.find_tensor("output.weight") == nullptr;
        for (const TensorInfo& tensor : file.tensors()) {
            const std::optional<Role> role = role_of(tensor.name);
            n_layers_ = std::max(n_layers_, role ? role->layer + 1 : 0);
        }
        const TensorInfo* q = file.find_tensor("blk.0.attn_q.weight");
        const TensorInfo* k = file.find_tensor("blk.0.attn_k.weight");
        many_heads_per_kv_ = q != nullptr && k != nullptr && q->shape[1] >= 4 * k->shape[1];
    }

    const Mix& mix() const { return mix_; }

    // Returns the tensor's new type, or nothing if it is copied unchanged. wanted: the mix's type; the result is a
    // wider type if the tensor's rows are not a multiple of its block size. Throws LK_INVALID_ARGUMENT if a type
    // requested by name does not fit.
    std::optional<WeightType> choose(const TensorInfo& tensor, WeightType& wanted) const {
        const std::optional<Role> role = role_of(tensor.name);
        if (tensor.n_dims < 2 || tensor.elements() == 0 || !role || role->name.find("norm") != std::string_view::npos) {
            return std::nullopt;
        }
        if (const std::optional<WeightType> asked = asked_for(*role)) {
            LK_CHECK(
                fits(tensor, *asked), LK_INVALID_ARGUMENT,
                "tensor %s has rows of %llu elements, not a multiple of the block size %u of %s; types that fit: %s",
                quote_text(tensor.name).c_str(), static_cast<unsigned long long>(tensor.shape[0]),
                weight_type_traits(*asked)->block_elements, weight_type_traits(*asked)->name,
                fitting_types(tensor).c_str());
            wanted = *asked;
            return asked;
        }
        wanted = mixed(*role);
        WeightType type = wanted;
        while (!fits(tensor, type)) {
            type = wider(type);
        }
        return type;
    }

private:
    static WeightType wider(WeightType type) {
        switch (type) {
        case Q2_K:
        case Q3_K:
            return Q4_0;
        case Q4_K:
            return Q5_0;
        case Q5_K:
            return Q5_1;
        case Q6_K:
            return Q8_0;
        default:
            return F16;
        }
    }

    static bool fits(const TensorInfo& tensor, WeightType type) {
        return tensor.shape[0] % weight_type_traits(type)->block_elements == 0;
    }

    static std::string fitting_types(const TensorInfo& tensor) {
        std::string names;
        for (uint32_t number = 0; number <= static_cast<uint32_t>(BF16); ++number) {
            const WeightTypeTraits* traits = weight_type_traits(number);
            if (traits != nullptr && fits(tensor, static_cast<WeightType>(number))) {
                names += (names.empty() ? "" : ", ") + std::string(traits->name);
            }
        }
        return names;
    }

    // The type that the options request by name for this role.
    std::optional<WeightType> asked_for(const Role& role) const {
        if (role.layer >= 0) {
            return std::nullopt;
        }
        if (role.name == "token_embd" && (embedding_ || !tied_)) {
            return embedding_;
        }
        return role.name == "output" || role.name == "token_embd" ? output_ : std::nullopt;
    }

    // The mix's type for this role.
    WeightType mixed(const Role& role) const {
        const WeightType base = mix_.base;
        if (pure_ || is_float(base) || base == Q8_0) {
            return base;
        }
        if (role.name == "output" || (role.name == "token_embd" && tied_)) {
            return falcon_ ? Q8_0 : Q6_K;
        }
        if (mix_.size == Size::plain) {
            return base;
        }
        const int i = role.layer;
        // The first and last eighth of the layers, and every third between them.
        const int eighth = n_layers_ / 8;
        const bool more_bits = i < eighth || i >= 7 * n_layers_ / 8 || (i - eighth) % 3 == 2;
        const bool small = mix_.size == Size::small;
        const bool medium = mix_.size == Size::medium;
        if (role.name == "attn_v") {
            switch (base) {
            case Q2_K:
                return many_heads_per_kv_ ? Q4_K : Q3_K;
            case Q3_K:
                return small ? base : medium && i >= 2 ? Q4_K : Q5_K;
            case Q4_K:
                return small ? (i < 4 ? Q5_K : base) : more_bits ? Q6_K : base;
            default:
                return medium && more_bits ? Q6_K : base;
            }
        }
        if (role.name == "ffn_down") {
            switch (base) {
            case Q2_K:
                return Q3_K;
            case Q3_K:
                if (small) {
                    return base;
                }
                if (medium) {
                    return i < n_layers_ / 16 ? Q5_K : !falcon_ || more_bits ? Q4_K : base;
                }
                return falcon_ ? Q4_K : Q5_K;
            case Q4_K:
                if (small) {
                    return !falcon_ && i < eighth ? Q5_K : base;
                }
                if (falcon_) {
                    return i < n_layers_ / 16 ? Q6_K : more_bits ? Q5_K : base;
                }
                return more_bits ? Q6_K : base;
            default:
                return medium && more_bits ? Q6_K : base;
            }
        }
        if (role.name == "attn_output" && base == Q2_K) {
            return falcon_ ? base : Q3_K;
        }
        if (role.name == "attn_output" && base == Q3_K && !small) {
            return falcon_ ? (medium ? base : Q4_K) : medium ? Q4_K : Q5_K;
        }
        if (role.name == "attn_qkv" && !small) {
            return base == Q3_K ? Q4_K : base == Q4_K ? Q5_K : base == Q5_K ? Q6_K : base;
        }
        return base;
    }

    const Mix& mix_;
    bool pure_;
    std::optional<WeightType> output_;
    std::optional<WeightType> embedding_;
    bool falcon_ = false;
    bool tied_ = false;
    bool many_heads_per_kv_ = false;
    int n_layers_ = 0;
};

// Elements converted and written at a time.
constexpr uint64_t kChunkElements = 1u << 22;

}  // namespace

const std::vector<const char*>& quantization_names() {
    static const std::vector<const char*> names = [] {
        std::vector<const char*> out;
        for (const Mix& mix : kMixes) {
            out.push_back(mix.name);
        }
        return out;
    }();
    return names;
}

QuantizeResult quantize_model(const std::string& from, const std::string& to, const QuantizeOptions& options) {
    const std::unique_ptr<GgufFile> file = naming_file(from, [&] { return GgufFile::open(from); });
    refuse_split(*file);
    const TypeChooser chooser(*file, options);
    LK_CHECK(!same_file(from, to), LK_INVALID_ARGUMENT, "'%s' is the input file; choose another output file",
             to.c_str());

    struct Step {
        const TensorInfo* tensor;
        WeightType before, after;
    };
    std::vector<Step> steps;
    QuantizeResult result;
    for (const TensorInfo& tensor : file->tensors()) {
        const WeightTypeTraits* traits = weight_type_traits(tensor.type);
        LK_CHECK(traits != nullptr, LK_UNSUPPORTED, "'%s': tensor %s has the unknown type %u", from.c_str(),
                 tensor.name.c_str(), tensor.type);
        const auto before = static_cast<WeightType>(tensor.type);
        WeightType wanted = before;
        const WeightType after = chooser.choose(tensor, wanted).value_or(before);
        if (after != wanted) {
            result.fallbacks.push_back({tensor.name, wanted, after});
        }
        if (after != before) {
            const bool requantized = !is_float(before);
            LK_CHECK(
                !requantized || options.allow_requantize, LK_INVALID_ARGUMENT,
                "'%s': tensor %s is already quantized (%s), and requantizing loses quality; use an F32, F16 or BF16 "
                "file as input, or allow requantizing",
                from.c_str(), tensor.name.c_str(), traits->name);
            ++result.n_converted;
            result.n_requantized += requantized ? 1 : 0;
        }
        steps.push_back({&tensor, before, after});
        result.bytes_before += tensor.size;
    }
    result.n_tensors = static_cast<int>(steps.size());

    GgufWriter writer(to, file->alignment());
    constexpr std::string_view kFileType = "general.file_type";
    constexpr std::string_view kVersion = "general.quantization_version";
    for (const GgufEntry& entry : file->entries()) {
        if (entry.key != kFileType && entry.key != kVersion) {
            writer.add(entry);
        }
    }
    writer.add_u32(kFileType, chooser.mix().file_type);
    writer.add_u32(kVersion, 2);  // K blocks
    for (const Step& step : steps) {
        writer.add(*step.tensor, step.after);
    }
    writer.begin_data();

    const int n_threads = options.n_threads > 0 ? options.n_threads : usable_processors();
    ThreadPool pool(n_threads);
    std::vector<std::vector<float>> scratch(pool.size());
    std::vector<uint8_t> out;
    uint64_t done = 0;
    const auto report = [&](uint64_t more) {
        done += more;
        const float fraction = static_cast<float>(static_cast<double>(done) /
                                                  static_cast<double>(std::max<uint64_t>(result.bytes_before, 1)));
        LK_CHECK(!options.progress || options.progress(fraction), LK_CANCELLED, "quantizing '%s' was cancelled",
                 from.c_str());
    };
    report(0);
    for (const Step& step : steps) {
        const uint8_t* data = file->tensor_data(*step.tensor);
        if (step.after == step.before) {
            writer.write(data, step.tensor->size);
            result.bytes_after += step.tensor->size;
            report(step.tensor->size);
            continue;
        }
        const uint64_t n = step.tensor->shape[0];
        const uint64_t rows = n > 0 ? step.tensor->elements() / n : 0;
        const WeightTypeTraits& to_traits = *weight_type_traits(step.after);
        const uint64_t row_before = rows > 0 ? step.tensor->size / rows : 0;
        const uint64_t row_after = n / to_traits.block_elements * to_traits.block_bytes;
        const uint64_t chunk = std::clamp<uint64_t>(kChunkElements / std::max<uint64_t>(n, 1), 1, 65536);
        for (uint64_t row = 0; row < rows; row += chunk) {
            const uint64_t n_rows = std::min(chunk, rows - row);
            out.resize(n_rows * row_after);
            pool.parallel_for(static_cast<int>(n_rows), [&](int i, int thread) {
                std::vector<float>& x = scratch[thread];
                x.resize(n);
                dequantize_row(step.before, data + (row + i) * row_before, x.data(), static_cast<int64_t>(n));
                const int64_t unfit = find_unfit(step.after, x.data(), static_cast<int64_t>(n));
                LK_CHECK(unfit < 0, LK_BAD_FILE,
                         "'%s': element %lld of row %llu of tensor %s is %g, which %s cannot represent", from.c_str(),
                         static_cast<long long>(unfit), static_cast<unsigned long long>(row + i),
                         step.tensor->name.c_str(), static_cast<double>(x[unfit]), to_traits.name);
                quantize_row(step.after, x.data(), static_cast<int64_t>(n), out.data() + i * row_after);
            });
            writer.write(out.data(), out.size());
            result.bytes_after += out.size();
            report(n_rows * row_before);
        }
    }
    writer.finish();
    return result;
}

}  // namespace lk
