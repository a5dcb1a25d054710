// A file mapped into memory, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lk {

// The pages come from the file as they are touched, so a file cut short by someone else while it is mapped raises
// SIGBUS on the lost part; no check made at opening can prevent that.
class MappedFile {
public:
    MappedFile() = default;
    // Maps a regular file; an empty one gives size() 0. Throws LK_IO_ERROR.
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
