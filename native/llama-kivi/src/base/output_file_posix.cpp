#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/output_file.h"
#include "llama_kivi.h"

namespace lk {

namespace {

constexpr int kMostLinks = 40;  // the limit of Linux

struct Descriptor {
    int fd = -1;
    ~Descriptor() {
        if (fd >= 0) {
            ::close(fd);
        }
    }
};

}  // namespace

struct OutputFile::Target {
    std::string path;       // as given, for messages
    std::string name;       // the target's name in the folder, links resolved
    std::string temporary;  // short and not derived from name, which may already have the maximum length
    Descriptor folder;
    Descriptor file;
    bool committed = false;

    explicit Target(const std::string& given);
    ~Target() {
        if (file.fd >= 0 && !committed) {
            ::unlinkat(folder.fd, temporary.c_str(), 0);
        }
    }
    [[noreturn]] void fail(const char* what, int error) const {
        LK_FAIL(LK_IO_ERROR, "cannot %s '%s': %s", what, path.c_str(), std::generic_category().message(error).c_str());
    }
};

OutputFile::Target::Target(const std::string& given) : path(given) {
    std::filesystem::path target = path;
    struct stat status;
    const bool exists = ::stat(path.c_str(), &status) == 0;
    if (exists) {
        LK_CHECK(S_ISREG(status.st_mode), LK_IO_ERROR, "cannot write '%s': it exists and is not a regular file",
                 path.c_str());
        // access() is not enough: the superuser can write any file. rename() would ignore the replaced file's mode.
        constexpr mode_t kAnyWrite = S_IWUSR | S_IWGRP | S_IWOTH;
        LK_CHECK((status.st_mode & kAnyWrite) != 0 && ::access(path.c_str(), W_OK) == 0, LK_IO_ERROR,
                 "cannot write '%s': the file exists and is read-only; make it writable, remove it or name another",
                 path.c_str());
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
    name = target.filename().string();
    if (name.empty() || name == "." || name == "..") {
        fail("write", EISDIR);
    }
    const std::string parent = target.has_parent_path() ? target.parent_path().string() : ".";
    folder.fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder.fd < 0) {
        fail("create", errno);
    }
    // A unique name: concurrent writers of one path do not share a temporary file.
    for (int i = 0; file.fd < 0; ++i) {
        temporary = format(".lk-%ld-%d.part", static_cast<long>(::getpid()), i);
        file.fd = ::openat(folder.fd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file.fd < 0 && errno != EEXIST) {
            fail("create", errno);
        }
    }
    if (exists) {
        // Best effort: some file systems have no permissions.
        static_cast<void>(::fchmod(file.fd, status.st_mode & 07777));
    }
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)), target_(std::make_unique<Target>(path_)) {}

OutputFile::~OutputFile() = default;

void OutputFile::write(const void* bytes, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(bytes);
    while (size > 0) {
        const ssize_t n = ::write(target_->file.fd, from, size);
        if (n < 0 && errno != EINTR) {
            target_->fail("write", errno);
        }
        const size_t done = n > 0 ? static_cast<size_t>(n) : 0;
        from += done;
        size -= done;
        written_ += done;
    }
}

void OutputFile::commit() {
    if (::fsync(target_->file.fd) != 0) {
        target_->fail("write", errno);
    }
    if (::renameat(target_->folder.fd, target_->temporary.c_str(), target_->folder.fd, target_->name.c_str()) != 0) {
        target_->fail("rename the finished file to", errno);
    }
    target_->committed = true;
}

bool same_file(const std::string& a, const std::string& b) {
    struct stat x;
    struct stat y;
    return ::stat(a.c_str(), &x) == 0 && ::stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

}  // namespace lk
