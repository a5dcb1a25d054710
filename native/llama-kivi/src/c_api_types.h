// The handle of a GGUF file in the C interface; a model lends one too.
#pragma once

#include <memory>

#include "gguf/reader.h"
#include "llama_kivi.h"

struct lk_gguf {
    std::shared_ptr<const lk::GgufFile> file;
};
