// The model configuration, read from a GGUF file's metadata and checked.
#pragma once

#include <string>

#include "gguf/reader.h"
#include "model/rope.h"

namespace lk {

struct Architecture;

enum class NormType {
    rms,    // RMSNorm
    layer,  // LayerNorm with bias
};

struct ModelConfig {
    const Architecture* architecture = nullptr;
    std::string architecture_name;  // general.architecture
    int n_layer = 0;
    int n_embd = 0;
    int n_head = 0;
    int n_head_kv = 0;
    int head_size = 0;  // D
    int n_ff = 0;
    int n_vocab = 0;
    int n_ctx_train = 0;
    int window = 0;  // sliding window in tokens; 0: none
    RopeConfig rope;
    // Set by Architecture::read_config.
    NormType norm = NormType::rms;
    float norm_eps = 0;
    bool gated_ffn = false;  // the MLP has gate, up and down; otherwise up and down

    // Throws LK_BAD_FILE or LK_UNSUPPORTED; the message names the key.
    static ModelConfig read(const GgufFile& file);
    // Reads a file of any architecture, with or without weights. Missing keys read as 0.
    static ModelConfig read_metadata(const GgufFile& file);
};

}  // namespace lk
