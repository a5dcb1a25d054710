// A file that is written beside its place and put there at the end, so that it appears whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lk {

class OutputFile {
public:
    // A symbolic link is followed: it stays, and the file it leads to is written. A file that is there keeps its
    // permissions, and its content until commit(). Throws LK_IO_ERROR: no regular file, read-only, or no such folder.
    explicit OutputFile(std::string path);
    // Without commit() nothing is left behind.
    ~OutputFile();
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    void write(const void* bytes, size_t size);
    void commit();

    const std::string& path() const { return path_; }  // as given: what messages name
    uint64_t written() const { return written_; }      // bytes

private:
    struct Descriptor {
        int fd = -1;
        ~Descriptor();
    };
    [[noreturn]] void fail(const char* what, int error) const;

    std::string path_;
    std::string name_;       // in the folder, links followed
    std::string temporary_;  // in the folder; short, so that the longest name a file can have is possible
    Descriptor folder_;
    Descriptor file_;
    bool committed_ = false;
    uint64_t written_ = 0;
};

}  // namespace lk
