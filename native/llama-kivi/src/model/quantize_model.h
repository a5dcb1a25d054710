// Quantizes model files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/blocks.h"

namespace lk {

struct QuantizeOptions {
    std::string type;  // a name from quantization_names(); case is ignored
    // Types of the output matrix (the token embedding if tied) and of the token embedding, by WeightType name. Rows
    // must be a multiple of the type's block size. Empty: the mix's type.
    std::string output_type;
    std::string token_embedding_type;
    bool allow_requantize = true;         // also convert quantized weights
    bool pure = false;                    // store every matrix in the mix's main type
    int n_threads = 0;                    // 0: one per processor
    std::function<bool(float)> progress;  // called with 0..1; return false to stop (LK_CANCELLED). May be empty.
};

// A tensor whose rows are not a multiple of the block size of the mix's type.
struct QuantizeFallback {
    std::string tensor;
    WeightType wanted;  // the mix's type
    WeightType given;   // the wider type used
};

struct QuantizeResult {
    uint64_t bytes_before = 0;  // all tensors
    uint64_t bytes_after = 0;
    int n_tensors = 0;
    int n_converted = 0;    // tensors whose type changed
    int n_requantized = 0;  // of these, quantized before
    std::vector<QuantizeFallback> fallbacks;
};

// Names of the types and mixes that quantize_model writes ("Q4_K_M").
const std::vector<const char*>& quantization_names();

// Converts the matrices (two or more dimensions, name ending in ".weight") of GGUF file `from` and writes the result to
// `to`; vectors and metadata are copied. The file `to` appears complete or not at all. Works for any architecture.
// Throws LK_INVALID_ARGUMENT, LK_IO_ERROR, LK_BAD_FILE, LK_UNSUPPORTED or LK_CANCELLED.
QuantizeResult quantize_model(const std::string& from, const std::string& to, const QuantizeOptions& options);

}  // namespace lk
