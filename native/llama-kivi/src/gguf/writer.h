// Writes a GGUF file, version 3, which appears under its name whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/output_file.h"
#include "gguf/reader.h"
#include "quant/blocks.h"

namespace lk {

// Order of calls: entries and tensors, begin_data, the tensors' bytes in the order of their declaration, finish.
class GgufWriter {
public:
    // path: see OutputFile, also for what is thrown. alignment: of the tensors, in bytes (is_alignment).
    GgufWriter(std::string path, uint32_t alignment);

    // Copies an entry of another file.
    void add(const GgufEntry& entry);
    void add_u32(std::string_view key, uint32_t value);
    // Declares a tensor of the name and shape of another; its rows are whole blocks of the type.
    void add(const TensorInfo& tensor, WeightType type);

    void begin_data();
    // Appends bytes of the current tensor; a tensor that is complete is padded.
    void write(const void* bytes, size_t size);
    // Puts the file in its place. Every declared byte must have been written.
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
    size_t current_ = 0;           // tensor that write() continues
    uint64_t current_written_ = 0;
};

}  // namespace lk
