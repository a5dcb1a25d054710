// Atomic file output: writes a temporary file in the target's folder and renames it at the end, so that the target
// appears complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
    struct Target;  // the temporary file and its final name, as the system has them

    std::string path_;
    std::unique_ptr<Target> target_;
    uint64_t written_ = 0;
};

// Whether both paths name one existing file.
bool same_file(const std::string& a, const std::string& b);

}  // namespace lk
