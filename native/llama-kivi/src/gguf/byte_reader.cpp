#include "gguf/byte_reader.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "gguf/text.h"
#include "llama_kivi.h"

namespace lk {

void ByteReader::fail(uint64_t at, const std::string& what) const {
    LK_FAIL(LK_BAD_FILE, "%s: %s, byte %llu: %s", name_.c_str(), where_.c_str(), static_cast<ull>(at), what.c_str());
}

const uint8_t* ByteReader::take(uint64_t n, const char* what) {
    if (n > remaining()) {
        fail(pos_, format("%s takes %llu bytes, but only %llu are left in the file", what, static_cast<ull>(n),
                          static_cast<ull>(remaining())));
    }
    const uint8_t* bytes = bytes_ + pos_;
    pos_ += n;
    return bytes;
}

std::string_view ByteReader::read_string(const char* what, uint64_t max_bytes) {
    const uint64_t at = pos_;
    const uint64_t length = read<uint64_t>(what);
    if (length > max_bytes) {
        fail(at, format("%s is %llu bytes long, expected at most %llu", what, static_cast<ull>(length),
                        static_cast<ull>(max_bytes)));
    }
    return {reinterpret_cast<const char*>(take(length, what)), static_cast<size_t>(length)};
}

std::string_view ByteReader::read_name(const char* what, uint64_t max_bytes) {
    const std::string_view name = read_string(what, max_bytes);
    const size_t bad = first_bad_byte(name);
    if (bad < name.size()) {
        fail(pos_ - name.size() + bad, format("%s %s is not valid UTF-8 without NUL", what, quote_text(name).c_str()));
    }
    return name;
}

lk_value_type ByteReader::read_type(const char* what) {
    const uint64_t at = pos_;
    const uint32_t type = read<uint32_t>(what);
    if (type > LK_VALUE_FLOAT64) {
        fail(at, format("%s %u is unknown, expected 0 to %d", what, type, LK_VALUE_FLOAT64));
    }
    return static_cast<lk_value_type>(type);
}

void ByteReader::check_count(uint64_t at, const char* what, uint64_t count, uint64_t min_bytes) const {
    if (count > remaining() / min_bytes) {
        fail(at, format("%llu %s of at least %llu bytes do not fit in the %llu bytes left in the file",
                        static_cast<ull>(count), what, static_cast<ull>(min_bytes), static_cast<ull>(remaining())));
    }
}

}  // namespace lk
