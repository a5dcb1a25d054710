// What a GGUF file's metadata says about a model, checked.
#pragma once

#include <string>

#include "gguf/reader.h"
#include "model/rope.h"

namespace lk {

struct Architecture;

enum class NormType {
    rms,    // RMSNorm
    layer,  // LayerNorm, with a bias
};

struct ModelConfig {
    const Architecture* architecture = nullptr;
    std::string architecture_name;  // as the file spells it
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
    // What architectures differ in; each sets it.
    NormType norm = NormType::rms;
    float norm_eps = 0;
    bool gated_ffn = false;  // an MLP of gate, up and down; otherwise of up and down

    // Throws LK_BAD_FILE or LK_UNSUPPORTED, naming the key.
    static ModelConfig read(const GgufFile& file);
    // What there is of a file of any architecture, which may have no weights; what is missing is 0.
    static ModelConfig read_metadata(const GgufFile& file);
};

}  // namespace lk
