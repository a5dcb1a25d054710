#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>

#include "base/error.h"
#include "llama_kivi.h"

namespace lk {

namespace {

// Closes the descriptor on every path; the mapping outlives it.
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) {
            ::close(fd);
        }
    }
};

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
    // generic_category().message() instead of strerror(), which is not thread-safe on every platform.
    LK_FAIL(LK_IO_ERROR, "cannot %s '%s': %s", what, path.c_str(), std::generic_category().message(error).c_str());
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
    // O_NONBLOCK: opening a FIFO would otherwise wait for a writer. It has no effect on a regular file.
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) {
        fail("open", path, errno);
    }
    struct stat status;
    if (::fstat(file.fd, &status) != 0) {
        fail("examine", path, errno);
    }
    LK_CHECK(!S_ISDIR(status.st_mode), LK_IO_ERROR, "cannot open '%s': it is a directory, expected a file",
             path.c_str());
    LK_CHECK(S_ISREG(status.st_mode), LK_IO_ERROR, "cannot map '%s': it is not a regular file", path.c_str());
    if (status.st_size == 0) {
        return;
    }
    if (static_cast<uintmax_t>(status.st_size) > std::numeric_limits<size_t>::max()) {
        fail("map", path, EFBIG);
    }
    const size_t size = static_cast<size_t>(status.st_size);
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (address == MAP_FAILED) {
        fail("map", path, errno);
    }
    data_ = static_cast<const uint8_t*>(address);
    size_ = size;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) {
        ::munmap(const_cast<uint8_t*>(data_), size_);
    }
}

}  // namespace lk
