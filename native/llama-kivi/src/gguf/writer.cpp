#include "gguf/writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"

namespace lk {

namespace {

constexpr uint32_t kVersion = 3;

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
    LK_FAIL(LK_IO_ERROR, "cannot %s '%s': %s", what, path.c_str(), std::generic_category().message(error).c_str());
}

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

GgufWriter::GgufWriter(std::string path, uint32_t alignment) : path_(std::move(path)), alignment_(alignment) {
    struct stat status;
    if (::stat(path_.c_str(), &status) == 0) {
        LK_CHECK(S_ISREG(status.st_mode), LK_IO_ERROR, "cannot write '%s': it is there and is no regular file",
                 path_.c_str());
    }
    // A name of its own: two writers of one path do not meet.
    for (int i = 0; file_ < 0; ++i) {
        part_path_ = format("%s.%ld-%d.part", path_.c_str(), static_cast<long>(::getpid()), i);
        file_ = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file_ < 0 && errno != EEXIST) {
            fail("create", part_path_, errno);
        }
    }
}

GgufWriter::~GgufWriter() {
    if (file_ >= 0) {
        ::close(file_);
        ::unlink(part_path_.c_str());
    }
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
    put(header.data(), header.size());
    put(entries_.data(), entries_.size());
    put(tensors_.data(), tensors_.size());
    pad();
}

void GgufWriter::write(const void* bytes, size_t size) {
    LK_CHECK(current_ < sizes_.size() && size <= sizes_[current_] - current_written_, LK_INTERNAL_ERROR,
             "'%s': more bytes than tensor %zu was declared with", path_.c_str(), current_);
    put(bytes, size);
    current_written_ += size;
    if (current_written_ == sizes_[current_]) {
        pad();
        ++current_;
        current_written_ = 0;
    }
}

void GgufWriter::finish() {
    LK_CHECK(current_ == sizes_.size(), LK_INTERNAL_ERROR, "'%s': tensor %zu of %zu is not complete", path_.c_str(),
             current_, sizes_.size());
    if (::fsync(file_) != 0) {
        fail("write", part_path_, errno);
    }
    if (::rename(part_path_.c_str(), path_.c_str()) != 0) {
        fail("put the finished file in place of", path_, errno);
    }
    ::close(file_);
    file_ = -1;
}

void GgufWriter::put(const void* bytes, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(bytes);
    written_ += size;
    while (size > 0) {
        const ssize_t n = ::write(file_, from, size);
        if (n < 0 && errno != EINTR) {
            fail("write", part_path_, errno);
        }
        const size_t done = n > 0 ? static_cast<size_t>(n) : 0;
        from += done;
        size -= done;
    }
}

void GgufWriter::pad() {
    const std::vector<uint8_t> zeros((alignment_ - written_ % alignment_) % alignment_);
    put(zeros.data(), zeros.size());
}

}  // namespace lk
