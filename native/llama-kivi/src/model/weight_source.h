// The source of a model's weight bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "gguf/reader.h"

namespace lk {

class WeightSource {
public:
    using Report = std::function<void(uint64_t bytes)>;  // bytes read since the last call; may throw to cancel

    virtual ~WeightSource() = default;

    // The blocks of a matrix, valid for the lifetime of this source and the file.
    virtual const uint8_t* matrix(const TensorInfo& info, const Report& report) = 0;
    // Reads a tensor of plain floats.
    virtual void vector(const TensorInfo& info, std::span<float> out) = 0;
};

// Opens the file's weights. use_mmap: matrices stay in the mapped file; otherwise they are copied to memory.
std::shared_ptr<WeightSource> open_weights(std::shared_ptr<const GgufFile> file, bool use_mmap);

}  // namespace lk
