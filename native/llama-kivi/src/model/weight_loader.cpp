#include "model/weight_loader.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "base/finite.h"
#include "gguf/reader.h"
#include "gguf/text.h"
#include "llama_kivi.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weight_source.h"
#include "quant/blocks.h"

namespace lk {

namespace {

// "attn_q" for "blk.3.attn_q.weight".
std::string_view operation_of(std::string_view tensor) {
    constexpr std::string_view kSuffix = ".weight";
    if (tensor.ends_with(kSuffix)) {
        tensor.remove_suffix(kSuffix.size());
    }
    return tensor.substr(tensor.rfind('.') + 1);
}

}  // namespace

WeightLoader::WeightLoader(const GgufFile& file, const ModelConfig& config, WeightSource& source,
                           std::function<bool(float)> progress)
    : file_(file),
      config_(config),
      source_(source),
      progress_(std::move(progress)),
      total_bytes_(total_weight_bytes(file)) {}

Tensor WeightLoader::matrix(const std::string& name, int64_t n_rows, int64_t n_cols) {
    const TensorInfo& info = require(name, {n_cols, n_rows});
    const WeightTypeTraits* traits = weight_type_traits(info.type);
    LK_CHECK(traits != nullptr, LK_UNSUPPORTED,
             "%s: tensor '%s' has type %u, which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, "
             "Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K",
             file_.name().c_str(), name.c_str(), info.type);
    Tensor t;
    t.type = static_cast<WeightType>(info.type);
    t.n_cols = n_cols;
    t.n_rows = n_rows;
    t.row_bytes = static_cast<size_t>(n_cols) / traits->block_elements * traits->block_bytes;
    t.data = source_.matrix(info, [this](uint64_t n) { report(n); });
    t.name = info.name;
    t.layer = layer_of(info.name);
    t.operation = operation_of(info.name);
    n_params_ += info.elements();
    bytes_by_type_[traits->name] += info.size;
    return t;
}

Tensor WeightLoader::rows(const Tensor& whole, int64_t first, int64_t n_rows, std::string_view operation) {
    Tensor part = whole;
    part.operation = operation;
    part.data += first * whole.row_bytes;
    part.n_rows = n_rows;
    return part;
}

std::vector<float> WeightLoader::vector(const std::string& name, int64_t n) {
    const TensorInfo& info = require(name, {n});
    const WeightTypeTraits* traits = weight_type_traits(info.type);
    LK_CHECK(traits != nullptr && traits->block_elements == 1, LK_UNSUPPORTED,
             "%s: tensor '%s' has type %s; it must be F32, F16 or BF16", file_.name().c_str(), name.c_str(),
             traits != nullptr ? traits->name : std::to_string(info.type).c_str());
    std::vector<float> out(n);
    source_.vector(info, out);
    check_finite(out, name);
    n_params_ += info.elements();
    report(info.size);
    return out;
}

std::vector<float> WeightLoader::floats(const std::string& name, int64_t n_rows, int64_t n_cols) {
    const Tensor t = matrix(name, n_rows, n_cols);
    std::vector<float> out(n_rows * n_cols);
    for (int64_t i = 0; i < n_rows; ++i) {
        dequantize_row(t.type, t.data + i * t.row_bytes, out.data() + i * n_cols, n_cols);
    }
    check_finite(out, name);
    return out;
}

Norm WeightLoader::norm(const std::string& name) {
    Norm norm;
    norm.weight = vector(name + ".weight", config_.n_embd);
    if (config_.norm == NormType::layer) {
        norm.bias = vector(name + ".bias", config_.n_embd);
    }
    return norm;
}

void WeightLoader::check_all_used() const {
    for (const TensorInfo& t : file_.tensors()) {
        LK_CHECK(used_.count(t.name) != 0 || t.name.find("rotary_emb") != std::string::npos ||
                     t.name.find("attn_rot_embd") != std::string::npos,
                 LK_UNSUPPORTED, "%s: tensor %s is not part of architecture '%s' as this engine implements it",
                 file_.name().c_str(), quote_text(t.name).c_str(), config_.architecture_name.c_str());
    }
}

std::string WeightLoader::dominant_type() const {
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

// For small tensors. Matrices are checked only after a matmul produced NaN or infinity (numeric_error.h).
void WeightLoader::check_finite(std::span<const float> values, const std::string& name) const {
    LK_CHECK(std::all_of(values.begin(), values.end(), is_finite), LK_BAD_FILE,
             "%s: tensor '%s' contains NaN or infinity", file_.name().c_str(), name.c_str());
}

const TensorInfo& WeightLoader::require(const std::string& name, std::vector<int64_t> shape) {
    const TensorInfo* info = file_.find_tensor(name);
    LK_CHECK(info != nullptr, LK_BAD_FILE, "%s: tensor '%s' is missing", file_.name().c_str(), name.c_str());
    used_.insert(name);
    shape.resize(4, 1);
    for (int i = 0; i < 4; ++i) {
        LK_CHECK(info->shape[i] == static_cast<uint64_t>(shape[i]), LK_BAD_FILE,
                 "%s: tensor '%s' has shape [%llu, %llu, %llu, %llu]; the metadata requires [%lld, %lld, %lld, %lld]",
                 file_.name().c_str(), name.c_str(), static_cast<unsigned long long>(info->shape[0]),
                 static_cast<unsigned long long>(info->shape[1]), static_cast<unsigned long long>(info->shape[2]),
                 static_cast<unsigned long long>(info->shape[3]), static_cast<long long>(shape[0]),
                 static_cast<long long>(shape[1]), static_cast<long long>(shape[2]), static_cast<long long>(shape[3]));
    }
    return *info;
}

void WeightLoader::report(uint64_t n) {
    done_ += n;
    const float fraction =
        total_bytes_ > 0 ? static_cast<float>(static_cast<double>(done_) / static_cast<double>(total_bytes_)) : 1.0f;
    LK_CHECK(!progress_ || progress_(std::min(fraction, 1.0f)), LK_CANCELLED, "loading %s was cancelled",
             file_.name().c_str());
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

}  // namespace lk
