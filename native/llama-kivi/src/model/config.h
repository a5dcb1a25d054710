// What a GGUF file's metadata says about a model, checked.
#pragma once

#include <string>

#include "gguf/reader.h"

namespace lk {

struct ModelConfig {
    std::string architecture;
    int n_layer = 0;
    int n_embd = 0;
    int n_head = 0;
    int n_head_kv = 0;
    int head_size = 0;  // D
    int n_ff = 0;
    int n_vocab = 0;
    int n_ctx_train = 0;
    int n_rot = 0;   // elements of a head that are rotated
    int window = 0;  // sliding window in tokens; 0: none
    float rope_freq_base = 0;
    float rope_scale = 1;  // positions are divided by it
    float norm_eps = 0;

    // Throws LK_BAD_FILE or LK_UNSUPPORTED, naming the key.
    static ModelConfig read(const GgufFile& file);
};

}  // namespace lk
