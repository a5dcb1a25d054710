#include "gguf/writer.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "gguf/reader.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk {

namespace {

constexpr uint32_t kVersion = 3;

void append(std::vector<uint8_t>& out, const void* bytes, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(bytes);
    out.insert(out.end(), from, from + size);
}

template <class T>
void append(std::vector<uint8_t>& out, T value) {
    append(out, &value, sizeof(value));
}

void append_string(std::vector<uint8_t>& out, std::string_view text) {
    append<uint64_t>(out, text.size());
    append(out, text.data(), text.size());
}

}  // namespace

GgufWriter::GgufWriter(std::string path, uint32_t alignment) : file_(std::move(path)), alignment_(alignment) {
    LK_CHECK(is_alignment(alignment), LK_INVALID_ARGUMENT,
             "cannot write '%s': alignment is %u; it must be a power of two from %u to %u", file_.path().c_str(),
             alignment, kMinAlignment, kMaxAlignment);
}

void GgufWriter::begin_entry(std::string_view key, lk_value_type type) {
    append_string(entries_, key);
    append<uint32_t>(entries_, type);
    ++n_entries_;
}

void GgufWriter::add(const GgufEntry& entry) {
    begin_entry(entry.key, entry.type);
    if (entry.type == LK_VALUE_ARRAY) {
        append<uint32_t>(entries_, entry.element_type);
        append<uint64_t>(entries_, entry.count);
    }
    if (entry.type == LK_VALUE_STRING) {
        append_string(entries_, {reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.count)});
    } else if (entry.element_type == LK_VALUE_STRING) {
        for (const std::string_view text : entry.strings) {
            append_string(entries_, text);
        }
    } else {
        append(entries_, entry.data, static_cast<size_t>(entry.count * scalar_bytes(entry.element_type)));
    }
}

void GgufWriter::add_u32(std::string_view key, uint32_t value) {
    begin_entry(key, LK_VALUE_UINT32);
    append(entries_, value);
}

void GgufWriter::add(const TensorInfo& tensor, WeightType type) {
    const WeightTypeTraits& traits = *weight_type_traits(type);
    const uint64_t size = tensor.elements() / traits.block_elements * traits.block_bytes;
    append_string(tensors_, tensor.name);
    append<uint32_t>(tensors_, tensor.n_dims);
    append(tensors_, tensor.shape, tensor.n_dims * sizeof(uint64_t));
    append<uint32_t>(tensors_, static_cast<uint32_t>(type));
    append<uint64_t>(tensors_, data_size_);
    sizes_.push_back(size);
    data_size_ += (size + alignment_ - 1) / alignment_ * alignment_;
}

void GgufWriter::begin_data() {
    std::vector<uint8_t> header;
    append(header, "GGUF", 4);
    append<uint32_t>(header, kVersion);
    append<uint64_t>(header, sizes_.size());
    append<uint64_t>(header, n_entries_);
    file_.write(header.data(), header.size());
    file_.write(entries_.data(), entries_.size());
    file_.write(tensors_.data(), tensors_.size());
    pad();
}

void GgufWriter::write(const void* bytes, size_t size) {
    LK_CHECK(current_ < sizes_.size() && size <= sizes_[current_] - current_written_, LK_INTERNAL_ERROR,
             "'%s': more bytes written than declared for tensor %zu", file_.path().c_str(), current_);
    file_.write(bytes, size);
    current_written_ += size;
    if (current_written_ == sizes_[current_]) {
        pad();
        ++current_;
        current_written_ = 0;
    }
}

void GgufWriter::finish() {
    LK_CHECK(current_ == sizes_.size(), LK_INTERNAL_ERROR, "'%s': tensor %zu of %zu is incomplete",
             file_.path().c_str(), current_, sizes_.size());
    file_.commit();
}

void GgufWriter::pad() {
    const std::vector<uint8_t> zeros((alignment_ - written() % alignment_) % alignment_);
    file_.write(zeros.data(), zeros.size());
}

}  // namespace lk
