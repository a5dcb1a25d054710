// Finds, checks and loads the tensors of a file.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weight_source.h"

namespace lk {

// Throws LK_BAD_FILE for a tensor that is missing, has the wrong shape or is not finite, and LK_UNSUPPORTED for an
// unsupported type. Messages name the file and the tensor.
class WeightLoader {
public:
    // progress: see Model::load.
    WeightLoader(const GgufFile& file, const ModelConfig& config, WeightSource& source,
                 std::function<bool(float)> progress);

    bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }
    Tensor matrix(const std::string& name, int64_t n_rows, int64_t n_cols);
    // A view of rows [first, first + n_rows) of a matrix. operation: its name in messages.
    static Tensor rows(const Tensor& whole, int64_t first, int64_t n_rows, std::string_view operation);
    // A tensor of plain floats, copied because it may be unaligned in the file.
    std::vector<float> vector(const std::string& name, int64_t n);
    // A dequantized matrix.
    std::vector<float> floats(const std::string& name, int64_t n_rows, int64_t n_cols);
    // name.weight, and name.bias if the model uses LayerNorm.
    Norm norm(const std::string& name);

    // Throws LK_UNSUPPORTED if the file has a tensor that was not loaded: the model would silently miss a part.
    void check_all_used() const;
    uint64_t n_params() const { return n_params_; }  // elements loaded so far
    std::string dominant_type() const;               // type with the most bytes of matrices loaded so far
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
inline constexpr const char* kOutput = "output.weight";  // absent if tied to the token embedding

// Bytes of all tensors in a file.
uint64_t total_weight_bytes(const GgufFile& file);

// Layer number in a tensor's name; -1 if none.
int layer_of(std::string_view tensor);

}  // namespace lk
