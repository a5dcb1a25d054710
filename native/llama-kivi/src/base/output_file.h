// Atomic file output: writes a temporary file in the target's folder and renames it at the end, so that the target
// appears complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lk {

class OutputFile {
public:
    // Follows a symbolic link and writes its target. An existing file keeps its permissions, and its content until
    // commit(). Throws LK_IO_ERROR if it is not a regular file, is read-only, or the folder does not exist.
    explicit OutputFile(std::string path);
    // Removes the temporary file unless commit() succeeded.
    ~OutputFile();
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    void write(const void* bytes, size_t size);
    void commit();

    const std::string& path() const { return path_; }  // as given, for messages
    uint64_t written() const { return written_; }      // bytes

private:
    struct Descriptor {
        int fd = -1;
        ~Descriptor();
    };
    [[noreturn]] void fail(const char* what, int error) const;

    std::string path_;
    std::string name_;       // the target's name in the folder, links resolved
    std::string temporary_;  // short and not derived from name_, which may already have the maximum length
    Descriptor folder_;
    Descriptor file_;
    bool committed_ = false;
    uint64_t written_ = 0;
};

}  // namespace lk
