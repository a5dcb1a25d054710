// Rewrites a model file with its weights in other formats.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/blocks.h"

namespace lk {

struct QuantizeOptions {
    std::string type;  // a name of quantization_names(), in any case
    // Of the output matrix, which is the token embedding in a model that has no other, and of the token embedding: a
    // WeightType's name, which must fit; empty: as the mix says.
    std::string output_type;
    std::string token_embedding_type;
    bool allow_requantize = true;         // whether weights may be quantized already
    bool pure = false;                    // every matrix in the mix's main type
    int n_threads = 0;                    // 0: one per processor
    std::function<bool(float)> progress;  // called with 0..1; returning false stops it (LK_CANCELLED). May be empty.
};

// A tensor whose rows do not fill the blocks of the type that the mix wants.
struct QuantizeFallback {
    std::string tensor;
    WeightType wanted;
    WeightType given;  // a wider one
};

struct QuantizeResult {
    uint64_t bytes_before = 0;  // of all tensors
    uint64_t bytes_after = 0;
    int n_tensors = 0;
    int n_converted = 0;    // got another type
    int n_requantized = 0;  // of those, were quantized before
    std::vector<QuantizeFallback> fallbacks;
};

// Names of the types and mixes quantize_model writes ("Q4_K_M").
const std::vector<const char*>& quantization_names();

// Reads the GGUF file at `from` and writes one to `to`, which appears whole or not at all. Matrices (two or more
// dimensions, name ending in "weight") are converted; vectors and metadata stay. Needs no architecture this engine
// runs. Throws LK_INVALID_ARGUMENT, LK_IO_ERROR, LK_BAD_FILE, LK_UNSUPPORTED or LK_CANCELLED.
QuantizeResult quantize_model(const std::string& from, const std::string& to, const QuantizeOptions& options);

}  // namespace lk
