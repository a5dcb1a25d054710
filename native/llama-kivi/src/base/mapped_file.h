// A file mapped into memory, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lk {

// Pages are read from the file on first access. If another process truncates the mapped file, access to the lost part
// raises SIGBUS; no check at opening can prevent that.
class MappedFile {
public:
    MappedFile() = default;
    // Maps a regular file; size() is 0 for an empty one. Throws LK_IO_ERROR.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const { return data_; }  // nullptr if size() is 0
    size_t size() const { return size_; }

private:
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace lk
