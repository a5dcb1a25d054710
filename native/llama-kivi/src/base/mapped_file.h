// A file mapped into memory, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace lk {

// Pages are read from the file on first access. If another process truncates the mapped file, access to the lost part
// raises SIGBUS; no check at opening can prevent that. Windows refuses to truncate a mapped file.
class MappedFile {
public:
    MappedFile() = default;
    // Maps a regular file; size() is 0 for an empty one. Throws LK_IO_ERROR.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    MappedFile& operator=(MappedFile&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const { return data_; }  // nullptr if size() is 0
    size_t size() const { return size_; }

private:
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace lk
