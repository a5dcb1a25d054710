// Reads GGUF files, versions 2 and 3. Files are untrusted: the whole structure is checked on opening, so callers need
// no further bounds checks.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "llama_kivi.h"

namespace lk {

// Range of general.alignment. Below 4, floats could be misaligned for a float*; far above, padding would outweigh
// tensors.
inline constexpr uint32_t kMinAlignment = 4;
inline constexpr uint32_t kMaxAlignment = 1u << 16;
constexpr bool is_alignment(uint32_t bytes) {
    return std::has_single_bit(bytes) && bytes >= kMinAlignment && bytes <= kMaxAlignment;
}

// One metadata entry. Numbers may be unaligned in the file: copy them, do not cast the pointer.
struct GgufEntry {
    std::string key;                        // valid UTF-8 without NUL
    lk_value_type type;                     // LK_VALUE_ARRAY for arrays
    lk_value_type element_type;             // arrays: type of the elements; otherwise equal to type
    uint64_t count;                         // arrays: elements; strings: bytes; otherwise 1
    const uint8_t* data;                    // the value's bytes; nullptr for arrays of strings
    std::vector<std::string_view> strings;  // elements of an array of strings; not checked to be UTF-8
};

// One tensor. A tensor of unknown type has size 0 and can only be listed.
struct TensorInfo {
    std::string name;   // valid UTF-8 without NUL, at most 64 bytes
    uint32_t type;      // ggml type number; a WeightType if weight_type_traits knows it
    uint32_t n_dims;    // 1..4
    uint64_t shape[4];  // elements, innermost dimension first; unused dimensions are 1
    uint64_t offset;    // bytes from the start of the data section
    uint64_t size;      // bytes

    uint64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }  // below 2^63: the parser checks
};

class GgufFile {
public:
    using Entry = GgufEntry;

    // Maps a file and parses its structure. Throws LK_IO_ERROR or LK_BAD_FILE.
    static std::unique_ptr<GgufFile> open(const std::string& path);

    // Parses a file in memory. The bytes must stay valid and unchanged for the object's lifetime. name replaces the
    // path in messages. Tensors do not overlap; if bytes is aligned to 4, so are F32 and F16 tensors. Throws
    // LK_BAD_FILE.
    static std::unique_ptr<GgufFile> parse(const uint8_t* bytes, size_t size, std::string name);

    GgufFile(const GgufFile&) = delete;
    GgufFile& operator=(const GgufFile&) = delete;

    // Replaces an entry, or adds one. Throws LK_INVALID_ARGUMENT.
    void set(const lk_metadata_override& override);

    // Copies the metadata to memory and unmaps the file, which may then change. tensor_data() is invalid afterwards.
    void release_file();

    const std::string& name() const { return name_; }
    uint32_t version() const { return version_; }
    uint32_t alignment() const { return alignment_; }
    uint64_t data_offset() const { return data_offset_; }  // at most file_size()
    uint64_t file_size() const { return size_; }

    const std::vector<Entry>& entries() const { return entries_; }       // in file order
    const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in file order

    const Entry* find(std::string_view key) const;               // nullptr if absent
    const TensorInfo* find_tensor(std::string_view name) const;  // nullptr if absent
    // tensor: of this file. Its `size` bytes are inside the file.
    const uint8_t* tensor_data(const TensorInfo& tensor) const { return bytes_ + data_offset_ + tensor.offset; }

    // Typed values. Without _or the key is required. Integers are read from any integer type, floats from any number
    // type, bools from bools and the integers 0 and 1. Throws LK_BAD_FILE with file, key and type for a value of
    // another type or out of range.
    uint32_t get_u32(std::string_view key) const;
    float get_f32(std::string_view key) const;
    std::string get_string(std::string_view key) const;
    bool get_bool(std::string_view key) const;
    uint32_t get_u32_or(std::string_view key, uint32_t fallback) const;
    float get_f32_or(std::string_view key, float fallback) const;
    std::string get_string_or(std::string_view key, std::string_view fallback) const;
    bool get_bool_or(std::string_view key, bool fallback) const;
    // A required array of integers; a scalar reads as an array of one element.
    std::vector<uint32_t> get_u32_array(std::string_view key) const;

private:
    class Parser;

    GgufFile() = default;
    const Entry& require(std::string_view key, const char* expected) const;
    uint32_t u32_at(const Entry& entry, uint64_t index) const;
    [[noreturn]] void fail_type(const Entry& entry, const char* expected) const;

    MappedFile mapping_;             // empty if the caller owns the bytes
    std::vector<uint8_t> metadata_;  // [data_offset_] after release_file()
    const uint8_t* bytes_ = nullptr;
    uint64_t size_ = 0;
    std::string name_;
    uint32_t version_ = 0;
    uint32_t alignment_ = 32;
    uint64_t data_offset_ = 0;
    std::vector<Entry> entries_;
    std::vector<TensorInfo> tensors_;
    // The keys are views of bytes_ or of set_, so growing vectors do not invalidate them.
    std::unordered_map<std::string_view, size_t> entry_index_;
    std::unordered_map<std::string_view, size_t> tensor_index_;
    std::deque<std::string> set_;  // keys and values stored by set()
};

// Size of a number or bool in bytes; 0 for other types.
uint64_t scalar_bytes(lk_value_type type);

// Name of a value type for messages ("u32"), or "unknown" for an undefined value.
const char* value_type_name(lk_value_type type);

}  // namespace lk
