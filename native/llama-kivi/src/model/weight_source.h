// Where the bytes of a model's weights come from.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "gguf/reader.h"

namespace lk {

class WeightSource {
public:
    using Report = std::function<void(uint64_t bytes)>;  // of the bytes read since the last call; may throw

    virtual ~WeightSource() = default;

    // The blocks of a matrix, which live as long as this source and the file.
    virtual const uint8_t* matrix(const TensorInfo& info, const Report& report) = 0;
    // The numbers of a tensor of plain floats.
    virtual void vector(const TensorInfo& info, std::span<float> out) = 0;
};

// The source that fits the file. use_mmap: matrices stay in the mapped file, otherwise they are read.
std::shared_ptr<WeightSource> open_weights(std::shared_ptr<const GgufFile> file, bool use_mmap);

}  // namespace lk
