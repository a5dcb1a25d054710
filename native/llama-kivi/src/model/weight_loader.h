// Finds, checks and brings in the tensors of a file.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weight_source.h"

namespace lk {

// Every failure names the file and the tensor: LK_BAD_FILE if it is missing, of another shape or not finite;
// LK_UNSUPPORTED if its type is.
class WeightLoader {
public:
    // progress: see Model::load.
    WeightLoader(const GgufFile& file, const ModelConfig& config, WeightSource& source,
                 std::function<bool(float)> progress);

    bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }
    Tensor matrix(const std::string& name, int64_t n_rows, int64_t n_cols);
    // Rows [first, first + n_rows) of a matrix, which are a matrix of their own to what is computed.
    static Tensor rows(const Tensor& whole, int64_t first, int64_t n_rows, std::string_view operation);
    // Of plain floats, copied: the file may align them to a single byte.
    std::vector<float> vector(const std::string& name, int64_t n);
    // A matrix as floats.
    std::vector<float> floats(const std::string& name, int64_t n_rows, int64_t n_cols);
    // name.weight, and name.bias of a LayerNorm.
    Norm norm(const std::string& name);

    // A tensor that no one asked for is a part of the model that would be left out in silence.
    void check_all_used() const;
    uint64_t n_params() const { return n_params_; }  // of the tensors so far
    std::string dominant_type() const;               // of the matrices so far, by bytes
    const GgufFile& file() const { return file_; }

private:
    void check_finite(std::span<const float> values, const std::string& name) const;
    const TensorInfo& require(const std::string& name, std::vector<int64_t> shape);
    void report(uint64_t n);

    const GgufFile& file_;
    const ModelConfig& config_;
    WeightSource& source_;
    const std::function<bool(float)> progress_;
    uint64_t total_bytes_;
    uint64_t done_ = 0;
    uint64_t n_params_ = 0;
    std::map<std::string, uint64_t> bytes_by_type_;
    std::set<std::string> used_;
};

inline constexpr const char* kTokenEmbedding = "token_embd.weight";
inline constexpr const char* kOutput = "output.weight";  // absent: the token embedding's

// Bytes of all tensors of a file.
uint64_t total_weight_bytes(const GgufFile& file);

// The layer a tensor belongs to, from its name; -1 if to none.
int layer_of(std::string_view tensor);

}  // namespace lk
