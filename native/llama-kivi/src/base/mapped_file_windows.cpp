#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/windows.h"
#include "llama_kivi.h"

namespace lk {

using windows::fail;

MappedFile::MappedFile(const std::string& path) {
    const std::wstring name = windows::wide_path(path);
    const DWORD attributes = ::GetFileAttributesW(name.c_str());
    if (attributes == INVALID_FILE_ATTRIBUTES) {
        fail("open", path, ::GetLastError());
    }
    LK_CHECK((attributes & FILE_ATTRIBUTE_DIRECTORY) == 0, LK_IO_ERROR,
             "cannot open '%s': it is a directory, expected a file", path.c_str());
    // FILE_SHARE_DELETE: others may rename or delete the file while it is mapped, as on other systems.
    const windows::Handle file(::CreateFileW(name.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                                             OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr));
    if (!file.valid()) {
        fail("open", path, ::GetLastError());
    }
    LK_CHECK(::GetFileType(file.handle) == FILE_TYPE_DISK, LK_IO_ERROR, "cannot map '%s': it is not a regular file",
             path.c_str());
    LARGE_INTEGER size;
    if (::GetFileSizeEx(file.handle, &size) == 0) {
        fail("examine", path, ::GetLastError());
    }
    if (size.QuadPart == 0) {
        return;
    }
    // The view keeps the mapping, and the mapping the file.
    const windows::Handle mapping(::CreateFileMappingW(file.handle, nullptr, PAGE_READONLY, 0, 0, nullptr));
    if (!mapping.valid()) {
        fail("map", path, ::GetLastError());
    }
    const void* address = ::MapViewOfFile(mapping.handle, FILE_MAP_READ, 0, 0, 0);
    if (address == nullptr) {
        fail("map", path, ::GetLastError());
    }
    data_ = static_cast<const uint8_t*>(address);
    size_ = static_cast<size_t>(size.QuadPart);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) {
        ::UnmapViewOfFile(data_);
    }
}

}  // namespace lk
