#include "base/output_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "llama_kivi.h"

namespace lk {

namespace {

constexpr int kMostLinks = 40;  // the limit of Linux

}  // namespace

OutputFile::Descriptor::~Descriptor() {
    if (fd >= 0) {
        ::close(fd);
    }
}

void OutputFile::fail(const char* what, int error) const {
    LK_FAIL(LK_IO_ERROR, "cannot %s '%s': %s", what, path_.c_str(), std::generic_category().message(error).c_str());
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
    std::filesystem::path target = path_;
    struct stat status;
    const bool exists = ::stat(path_.c_str(), &status) == 0;
    if (exists) {
        LK_CHECK(S_ISREG(status.st_mode), LK_IO_ERROR, "cannot write '%s': it exists and is not a regular file",
                 path_.c_str());
        // access() is not enough: the superuser can write any file. rename() would ignore the replaced file's mode.
        constexpr mode_t kAnyWrite = S_IWUSR | S_IWGRP | S_IWOTH;
        LK_CHECK((status.st_mode & kAnyWrite) != 0 && ::access(path_.c_str(), W_OK) == 0, LK_IO_ERROR,
                 "cannot write '%s': the file exists and is read-only; make it writable, remove it or name another",
                 path_.c_str());
    }
    std::error_code error;
    for (int links = 0; std::filesystem::is_symlink(target, error); ++links) {
        if (links == kMostLinks) {
            fail("write", ELOOP);
        }
        const std::filesystem::path next = std::filesystem::read_symlink(target, error);
        if (error) {
            fail("write", error.value());
        }
        target = target.parent_path() / next;
    }
    name_ = target.filename().string();
    if (name_.empty() || name_ == "." || name_ == "..") {
        fail("write", EISDIR);
    }
    const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
    folder_.fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_.fd < 0) {
        fail("create", errno);
    }
    // A unique name: concurrent writers of one path do not share a temporary file.
    for (int i = 0; file_.fd < 0; ++i) {
        temporary_ = format(".lk-%ld-%d.part", static_cast<long>(::getpid()), i);
        file_.fd = ::openat(folder_.fd, temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file_.fd < 0 && errno != EEXIST) {
            fail("create", errno);
        }
    }
    if (exists) {
        // Best effort: some file systems have no permissions.
        static_cast<void>(::fchmod(file_.fd, status.st_mode & 07777));
    }
}

OutputFile::~OutputFile() {
    if (!committed_) {
        ::unlinkat(folder_.fd, temporary_.c_str(), 0);
    }
}

void OutputFile::write(const void* bytes, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(bytes);
    while (size > 0) {
        const ssize_t n = ::write(file_.fd, from, size);
        if (n < 0 && errno != EINTR) {
            fail("write", errno);
        }
        const size_t done = n > 0 ? static_cast<size_t>(n) : 0;
        from += done;
        size -= done;
        written_ += done;
    }
}

void OutputFile::commit() {
    if (::fsync(file_.fd) != 0) {
        fail("write", errno);
    }
    if (::renameat(folder_.fd, temporary_.c_str(), folder_.fd, name_.c_str()) != 0) {
        fail("rename the finished file to", errno);
    }
    committed_ = true;
}

}  // namespace lk
