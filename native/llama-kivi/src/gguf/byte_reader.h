// Reads of a GGUF file's bytes, front to back. Every read checks its size first, so the position never passes the end.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "gguf/load.h"
#include "llama_kivi.h"

namespace lk {

using ull = unsigned long long;

class ByteReader {
protected:
    // name: the file's, in messages. It must outlive the reader.
    ByteReader(const uint8_t* bytes, uint64_t size, const std::string& name)
        : bytes_(bytes), size_(size), name_(name) {}

    // Throws LK_BAD_FILE. The message begins with where_, the item being read: "key 'general.name'".
    [[noreturn]] void fail(uint64_t at, const std::string& what) const;
    uint64_t remaining() const { return size_ - pos_; }
    const uint8_t* take(uint64_t n, const char* what);

    template <class T>
    T read(const char* what) {
        return load<T>(take(sizeof(T), what));
    }

    std::string_view read_string(const char* what, uint64_t max_bytes = std::numeric_limits<uint64_t>::max());
    // A key or a tensor name. The C interface returns it NUL-terminated, so NUL and invalid UTF-8 are rejected.
    std::string_view read_name(const char* what, uint64_t max_bytes);
    lk_value_type read_type(const char* what);
    // Rejects an impossible count before it sizes a loop or an allocation.
    void check_count(uint64_t at, const char* what, uint64_t count, uint64_t min_bytes) const;

    uint64_t pos_ = 0;
    std::string where_;

private:
    const uint8_t* bytes_;
    uint64_t size_;
    const std::string& name_;
};

}  // namespace lk
