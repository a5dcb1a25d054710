// Writes a GGUF file, version 3. The file appears complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/output_file.h"
#include "gguf/reader.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk {

// Call order: add entries and tensors; begin_data; write each tensor's bytes in order of declaration; finish.
class GgufWriter {
public:
    // path and errors: see OutputFile. alignment: of the tensors, in bytes; see is_alignment.
    GgufWriter(std::string path, uint32_t alignment);

    // Copies an entry from another file.
    void add(const GgufEntry& entry);
    void add_u32(std::string_view key, uint32_t value);
    // Declares a tensor with the name and shape of `tensor`. Its rows must be a multiple of the type's block size.
    void add(const TensorInfo& tensor, WeightType type);

    void begin_data();
    // Appends bytes to the current tensor. Pads a complete tensor and moves to the next.
    void write(const void* bytes, size_t size);
    // Commits the file. Every declared byte must have been written.
    void finish();

    uint64_t written() const { return file_.written(); }  // bytes, padding included

private:
    void begin_entry(std::string_view key, lk_value_type type);
    void pad();

    OutputFile file_;
    uint32_t alignment_;
    uint64_t n_entries_ = 0;
    std::vector<uint8_t> entries_;
    std::vector<uint8_t> tensors_;
    std::vector<uint64_t> sizes_;  // bytes of each tensor
    uint64_t data_size_ = 0;       // bytes of the tensors declared so far, padding included
    size_t current_ = 0;           // tensor that write() appends to
    uint64_t current_written_ = 0;
};

}  // namespace lk
