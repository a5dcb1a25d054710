// Builds GGUF files in memory for tests: valid ones and, with the raw_ functions, malformed ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "llama_kivi.h"

namespace lk::test {

class GgufWriter {
public:
    using Bytes = std::vector<uint8_t>;

    explicit GgufWriter(uint32_t version = 3) : version_(version) {}

    // ---- metadata

    template <class T>
    GgufWriter& number(std::string_view key, lk_value_type type, T value) {
        begin_entry(key, type);
        append(entries_, value);
        return *this;
    }
    GgufWriter& u8(std::string_view key, uint8_t value) { return number(key, LK_VALUE_UINT8, value); }
    GgufWriter& i8(std::string_view key, int8_t value) { return number(key, LK_VALUE_INT8, value); }
    GgufWriter& u16(std::string_view key, uint16_t value) { return number(key, LK_VALUE_UINT16, value); }
    GgufWriter& i16(std::string_view key, int16_t value) { return number(key, LK_VALUE_INT16, value); }
    GgufWriter& u32(std::string_view key, uint32_t value) { return number(key, LK_VALUE_UINT32, value); }
    GgufWriter& i32(std::string_view key, int32_t value) { return number(key, LK_VALUE_INT32, value); }
    GgufWriter& u64(std::string_view key, uint64_t value) { return number(key, LK_VALUE_UINT64, value); }
    GgufWriter& i64(std::string_view key, int64_t value) { return number(key, LK_VALUE_INT64, value); }
    GgufWriter& f32(std::string_view key, float value) { return number(key, LK_VALUE_FLOAT32, value); }
    GgufWriter& f64(std::string_view key, double value) { return number(key, LK_VALUE_FLOAT64, value); }
    GgufWriter& boolean(std::string_view key, bool value) {
        return number(key, LK_VALUE_BOOL, static_cast<uint8_t>(value));
    }

    GgufWriter& string(std::string_view key, std::string_view value) {
        begin_entry(key, LK_VALUE_STRING);
        append_string(entries_, value);
        return *this;
    }

    template <class T>
    GgufWriter& array(std::string_view key, lk_value_type element_type, const std::vector<T>& values) {
        begin_array(key, element_type, values.size());
        for (const T& value : values) {
            append(entries_, value);
        }
        return *this;
    }

    GgufWriter& strings(std::string_view key, const std::vector<std::string>& values) {
        begin_array(key, LK_VALUE_STRING, values.size());
        for (const std::string& value : values) {
            append_string(entries_, value);
        }
        return *this;
    }

    // Adds an entry of any type with these bytes as its value.
    GgufWriter& raw_entry(std::string_view key, uint32_t type, const Bytes& value) {
        begin_entry(key, type);
        entries_.insert(entries_.end(), value.begin(), value.end());
        return *this;
    }

    // ---- tensors

    // Adds a tensor with data at the next aligned offset. shape: innermost dimension first.
    GgufWriter& tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape, const Bytes& data) {
        pad(data_, alignment_);
        raw_tensor(name, static_cast<uint32_t>(shape.size()), shape, type, data_.size());
        data_.insert(data_.end(), data.begin(), data.end());
        return *this;
    }

    // Adds a tensor description without data.
    GgufWriter& raw_tensor(std::string_view name, uint32_t n_dims, const std::vector<uint64_t>& shape, uint32_t type,
                           uint64_t offset) {
        append_string(tensors_, name);
        append(tensors_, n_dims);
        for (const uint64_t length : shape) {
            append(tensors_, length);
        }
        append(tensors_, type);
        append(tensors_, offset);
        ++n_tensors_;
        return *this;
    }

    // Writes general.alignment and applies it from the next tensor on.
    GgufWriter& alignment(uint32_t value) {
        alignment_ = value;
        return u32("general.alignment", value);
    }

    Bytes bytes() const {
        Bytes out = {'G', 'G', 'U', 'F'};
        append(out, version_);
        append(out, n_tensors_);
        append(out, n_entries_);
        out.insert(out.end(), entries_.begin(), entries_.end());
        out.insert(out.end(), tensors_.begin(), tensors_.end());
        if (n_tensors_ != 0) {
            pad(out, alignment_);
        }
        out.insert(out.end(), data_.begin(), data_.end());
        return out;
    }

    // ---- pieces

    static constexpr size_t kVersionOffset = 4;
    static constexpr size_t kTensorCountOffset = 8;
    static constexpr size_t kEntryCountOffset = 16;
    static constexpr size_t kHeaderBytes = 24;

    // Not inlined: GCC 12 gives false warnings about overflowing writes when it knows the sizes.
    template <class T>
    [[gnu::noinline]] static void append(Bytes& out, T value) {
        out.resize(out.size() + sizeof(T));
        patch(out, out.size() - sizeof(T), value);
    }

    static void append_string(Bytes& out, std::string_view text) {
        append(out, static_cast<uint64_t>(text.size()));
        out.insert(out.end(), text.begin(), text.end());
    }

    template <class T>
    static void patch(Bytes& bytes, size_t offset, T value) {
        std::memcpy(bytes.data() + offset, &value, sizeof(T));
    }

private:
    void begin_entry(std::string_view key, uint32_t type) {
        append_string(entries_, key);
        append(entries_, type);
        ++n_entries_;
    }

    void begin_array(std::string_view key, lk_value_type element_type, size_t count) {
        begin_entry(key, LK_VALUE_ARRAY);
        append(entries_, static_cast<uint32_t>(element_type));
        append(entries_, static_cast<uint64_t>(count));
    }

    static void pad(Bytes& out, size_t alignment) {
        while (out.size() % alignment != 0) {
            out.push_back(0);
        }
    }

    uint32_t version_;
    uint32_t alignment_ = 32;
    uint64_t n_entries_ = 0;
    uint64_t n_tensors_ = 0;
    Bytes entries_;
    Bytes tensors_;
    Bytes data_;
};

}  // namespace lk::test
