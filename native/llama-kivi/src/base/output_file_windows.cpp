#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/output_file.h"
#include "base/windows.h"
#include "llama_kivi.h"

namespace lk {

namespace {

constexpr DWORD kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

// Opens an existing file or folder for questions about it; follows links.
HANDLE open_for_attributes(const std::wstring& name) {
    return ::CreateFileW(name.c_str(), FILE_READ_ATTRIBUTES, kShareAll, nullptr, OPEN_EXISTING,
                         FILE_FLAG_BACKUP_SEMANTICS, nullptr);
}

// The path of an open file, links resolved; empty if the file system does not tell.
std::wstring final_path(HANDLE file) {
    const DWORD size = ::GetFinalPathNameByHandleW(file, nullptr, 0, 0);
    std::wstring path(size, L'\0');
    path.resize(size > 0 ? ::GetFinalPathNameByHandleW(file, path.data(), size, 0) : 0);
    return path;
}

}  // namespace

struct OutputFile::Target {
    std::string path;        // as given, for messages
    std::wstring name;       // the target, links resolved
    std::wstring temporary;  // in the target's folder
    windows::Handle file;
    bool committed = false;

    explicit Target(const std::string& given);
    ~Target() {
        if (!temporary.empty() && !committed) {
            file.close();
            ::DeleteFileW(temporary.c_str());
        }
    }
};

OutputFile::Target::Target(const std::string& given) : path(given), name(windows::wide_path(given)) {
    const windows::Handle existing(open_for_attributes(name));
    if (existing.valid()) {
        const DWORD attributes = ::GetFileAttributesW(name.c_str());
        LK_CHECK(::GetFileType(existing.handle) == FILE_TYPE_DISK && (attributes & FILE_ATTRIBUTE_DIRECTORY) == 0,
                 LK_IO_ERROR, "cannot write '%s': it exists and is not a regular file", path.c_str());
        LK_CHECK((attributes & FILE_ATTRIBUTE_READONLY) == 0, LK_IO_ERROR,
                 "cannot write '%s': the file exists and is read-only; make it writable, remove it or name another",
                 path.c_str());
        if (std::wstring target = final_path(existing.handle); !target.empty()) {
            name = std::move(target);
        }
    }
    const size_t slash = name.find_last_of(L"\\/");
    const std::wstring folder = slash == std::wstring::npos ? L"" : name.substr(0, slash + 1);
    if (name.size() == folder.size()) {
        windows::fail("write", path, ERROR_DIRECTORY);
    }
    // A unique name: concurrent writers of one path do not share a temporary file.
    for (int i = 0; !file.valid(); ++i) {
        std::wstring candidate =
            folder + L".lk-" + std::to_wstring(::GetCurrentProcessId()) + L"-" + std::to_wstring(i) + L".part";
        file.handle = ::CreateFileW(candidate.c_str(), GENERIC_WRITE, FILE_SHARE_READ, nullptr, CREATE_NEW,
                                    FILE_ATTRIBUTE_NORMAL, nullptr);
        if (file.valid()) {
            temporary = std::move(candidate);
        } else if (const DWORD error = ::GetLastError(); error != ERROR_FILE_EXISTS) {
            windows::fail("create", path, error);
        }
    }
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)), target_(std::make_unique<Target>(path_)) {}

OutputFile::~OutputFile() = default;

void OutputFile::write(const void* bytes, size_t size) {
    constexpr size_t kMostBytes = 1u << 30;
    const uint8_t* from = static_cast<const uint8_t*>(bytes);
    while (size > 0) {
        DWORD done = 0;
        if (::WriteFile(target_->file.handle, from, static_cast<DWORD>(std::min(size, kMostBytes)), &done, nullptr) ==
            0) {
            windows::fail("write", path_, ::GetLastError());
        }
        from += done;
        size -= done;
        written_ += done;
    }
}

void OutputFile::commit() {
    if (::FlushFileBuffers(target_->file.handle) == 0) {
        windows::fail("write", path_, ::GetLastError());
    }
    target_->file.close();  // an open file cannot be renamed
    constexpr DWORD kHow = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    if (::MoveFileExW(target_->temporary.c_str(), target_->name.c_str(), kHow) == 0) {
        const DWORD error = ::GetLastError();
        const bool exists = ::GetFileAttributesW(target_->name.c_str()) != INVALID_FILE_ATTRIBUTES;
        LK_CHECK(
            !exists ||
                (error != ERROR_ACCESS_DENIED && error != ERROR_SHARING_VIOLATION && error != ERROR_USER_MAPPED_FILE),
            LK_IO_ERROR, "cannot replace '%s': it is open in this or another program; close it or name another file",
            path_.c_str());
        windows::fail("rename the finished file to", path_, error);
    }
    target_->committed = true;
}

bool same_file(const std::string& a, const std::string& b) {
    const windows::Handle x(open_for_attributes(windows::wide_path(a)));
    const windows::Handle y(open_for_attributes(windows::wide_path(b)));
    BY_HANDLE_FILE_INFORMATION s;
    BY_HANDLE_FILE_INFORMATION t;
    return x.valid() && y.valid() && ::GetFileInformationByHandle(x.handle, &s) != 0 &&
           ::GetFileInformationByHandle(y.handle, &t) != 0 && s.dwVolumeSerialNumber == t.dwVolumeSerialNumber &&
           s.nFileIndexHigh == t.nFileIndexHigh && s.nFileIndexLow == t.nFileIndexLow;
}

}  // namespace lk
