#include "gguf/reader.h"

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/load.h"
#include "gguf/text.h"
#include "llama_kivi.h"

namespace lk {

static_assert(std::endian::native == std::endian::little, "GGUF values are read without byte swapping");

uint64_t scalar_bytes(lk_value_type type) {
    switch (type) {
    case LK_VALUE_UINT8:
    case LK_VALUE_INT8:
    case LK_VALUE_BOOL:
        return 1;
    case LK_VALUE_UINT16:
    case LK_VALUE_INT16:
        return 2;
    case LK_VALUE_UINT32:
    case LK_VALUE_INT32:
    case LK_VALUE_FLOAT32:
        return 4;
    case LK_VALUE_UINT64:
    case LK_VALUE_INT64:
    case LK_VALUE_FLOAT64:
        return 8;
    case LK_VALUE_STRING:
    case LK_VALUE_ARRAY:
        return 0;
    }
    return 0;
}

const char* value_type_name(lk_value_type type) {
    static constexpr const char* names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                            "bool", "string", "array", "u64", "i64", "f64"};
    const auto index = static_cast<size_t>(type);
    return index < std::size(names) ? names[index] : "unknown";
}

const GgufEntry& GgufFile::require(std::string_view key, const char* expected) const {
    const Entry* entry = find(key);
    LK_CHECK(entry != nullptr, LK_BAD_FILE, "%s: key %s is missing, expected %s", name_.c_str(),
             quote_text(key).c_str(), expected);
    return *entry;
}

void GgufFile::fail_type(const Entry& entry, const char* expected) const {
    const bool array = entry.type == LK_VALUE_ARRAY;
    LK_FAIL(LK_BAD_FILE, "%s: key %s: type is %s%s, expected %s", name_.c_str(), quote_text(entry.key).c_str(),
            array ? "array of " : "", value_type_name(entry.element_type), expected);
}

uint32_t GgufFile::u32_at(const Entry& entry, uint64_t index) const {
    const uint8_t* data = entry.data + index * scalar_bytes(entry.element_type);
    int64_t value = 0;
    switch (entry.element_type) {
    case LK_VALUE_UINT8:
        return load<uint8_t>(data);
    case LK_VALUE_UINT16:
        return load<uint16_t>(data);
    case LK_VALUE_UINT32:
        return load<uint32_t>(data);
    case LK_VALUE_UINT64: {
        const uint64_t wide = load<uint64_t>(data);
        LK_CHECK(wide <= UINT32_MAX, LK_BAD_FILE, "%s: key %s: value %llu (u64), expected 0 to %u", name_.c_str(),
                 quote_text(entry.key).c_str(), static_cast<unsigned long long>(wide), UINT32_MAX);
        return static_cast<uint32_t>(wide);
    }
    case LK_VALUE_INT8:
        value = load<int8_t>(data);  // NOLINT(bugprone-signed-char-misuse): a number, not a character
        break;
    case LK_VALUE_INT16:
        value = load<int16_t>(data);
        break;
    case LK_VALUE_INT32:
        value = load<int32_t>(data);
        break;
    case LK_VALUE_INT64:
        value = load<int64_t>(data);
        break;
    default:
        fail_type(entry, "an integer");
    }
    LK_CHECK(value >= 0 && value <= UINT32_MAX, LK_BAD_FILE, "%s: key %s: value %lld (%s), expected 0 to %u",
             name_.c_str(), quote_text(entry.key).c_str(), static_cast<long long>(value),
             value_type_name(entry.element_type), UINT32_MAX);
    return static_cast<uint32_t>(value);
}

uint32_t GgufFile::get_u32(std::string_view key) const {
    const Entry& entry = require(key, "an integer");
    if (entry.type == LK_VALUE_ARRAY) {
        fail_type(entry, "an integer");
    }
    return u32_at(entry, 0);
}

std::vector<uint32_t> GgufFile::get_u32_array(std::string_view key) const {
    const Entry& entry = require(key, "integers");
    if (entry.element_type == LK_VALUE_STRING) {
        fail_type(entry, "integers");
    }
    std::vector<uint32_t> values(static_cast<size_t>(entry.count));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = u32_at(entry, i);
    }
    return values;
}

float GgufFile::get_f32(std::string_view key) const {
    const Entry& entry = require(key, "a float");
    switch (entry.type) {
    case LK_VALUE_FLOAT32:
        return load<float>(entry.data);
    case LK_VALUE_FLOAT64: {
        const double value = load<double>(entry.data);
        LK_CHECK(!std::isfinite(value) || std::fabs(value) <= FLT_MAX, LK_BAD_FILE,
                 "%s: key %s: value %g (f64), expected a value in the range of f32", name_.c_str(),
                 quote_text(key).c_str(), value);
        return static_cast<float>(value);
    }
    case LK_VALUE_INT8:
        return load<int8_t>(entry.data);
    case LK_VALUE_INT16:
        return load<int16_t>(entry.data);
    case LK_VALUE_INT32:
        return static_cast<float>(load<int32_t>(entry.data));
    case LK_VALUE_INT64:
        return static_cast<float>(load<int64_t>(entry.data));
    case LK_VALUE_UINT64:
        return static_cast<float>(load<uint64_t>(entry.data));
    case LK_VALUE_UINT8:
    case LK_VALUE_UINT16:
    case LK_VALUE_UINT32:
        return static_cast<float>(u32_at(entry, 0));
    default:
        fail_type(entry, "a float");
    }
}

std::string GgufFile::get_string(std::string_view key) const {
    const Entry& entry = require(key, "a string");
    if (entry.type != LK_VALUE_STRING) {
        fail_type(entry, "a string");
    }
    return std::string(reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.count));
}

bool GgufFile::get_bool(std::string_view key) const {
    const Entry& entry = require(key, "a bool");
    if (entry.type == LK_VALUE_BOOL) {
        return entry.data[0] != 0;
    }
    if (entry.type == LK_VALUE_ARRAY || entry.type == LK_VALUE_STRING || entry.type == LK_VALUE_FLOAT32 ||
        entry.type == LK_VALUE_FLOAT64) {
        fail_type(entry, "a bool");
    }
    const uint32_t value = u32_at(entry, 0);
    LK_CHECK(value <= 1, LK_BAD_FILE, "%s: key %s: value %u (%s), expected a bool, 0 or 1", name_.c_str(),
             quote_text(key).c_str(), value, value_type_name(entry.type));
    return value != 0;
}

uint32_t GgufFile::get_u32_or(std::string_view key, uint32_t fallback) const {
    return find(key) != nullptr ? get_u32(key) : fallback;
}

float GgufFile::get_f32_or(std::string_view key, float fallback) const {
    return find(key) != nullptr ? get_f32(key) : fallback;
}

std::string GgufFile::get_string_or(std::string_view key, std::string_view fallback) const {
    return find(key) != nullptr ? get_string(key) : std::string(fallback);
}

bool GgufFile::get_bool_or(std::string_view key, bool fallback) const {
    return find(key) != nullptr ? get_bool(key) : fallback;
}

}  // namespace lk
