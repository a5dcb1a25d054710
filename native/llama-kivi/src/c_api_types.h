// The C interface's handle of a GGUF file. A model contains one (lk_model_gguf).
#pragma once

#include <memory>

#include "gguf/reader.h"
#include "llama_kivi.h"

struct lk_gguf {
    std::shared_ptr<const lk::GgufFile> file;
};
