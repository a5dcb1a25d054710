// Paths, errors and handles of the Windows API. Included by the files of that system only.
#pragma once

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <string>

namespace lk::windows {

// A UTF-8 path for the wide functions: absolute, with "\\?\" in front if it is longer than MAX_PATH allows. Throws
// LK_IO_ERROR if the text is not UTF-8.
std::wstring wide_path(const std::string& path);

std::string utf8(const std::wstring& text);

// The message of an error code, on one line: of the C library where it has the error, as on other systems.
std::string message(DWORD error);

// Throws LK_IO_ERROR: "cannot WHAT 'PATH': message".
[[noreturn]] void fail(const char* what, const std::string& path, DWORD error);

// Closes a handle on every path.
struct Handle {
    HANDLE handle = INVALID_HANDLE_VALUE;

    Handle() = default;
    explicit Handle(HANDLE h) : handle(h) {}
    ~Handle() { close(); }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    bool valid() const { return handle != INVALID_HANDLE_VALUE && handle != nullptr; }
    void close() {
        if (valid()) {
            ::CloseHandle(handle);
            handle = INVALID_HANDLE_VALUE;
        }
    }
};

}  // namespace lk::windows
