#include <string>
#include <system_error>

#include "base/error.h"
#include "base/windows.h"
#include "llama_kivi.h"

namespace lk::windows {

namespace {

std::wstring wide(const std::string& text) {
    if (text.empty()) {
        return {};
    }
    const int length = static_cast<int>(text.size());
    const int n = ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text.data(), length, nullptr, 0);
    LK_CHECK(n > 0, LK_IO_ERROR, "a path is not valid UTF-8");
    std::wstring out(static_cast<size_t>(n), L'\0');
    ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text.data(), length, out.data(), n);
    return out;
}

}  // namespace

std::wstring wide_path(const std::string& path) {
    std::wstring given = wide(path);
    const DWORD size = ::GetFullPathNameW(given.c_str(), 0, nullptr, nullptr);
    if (size == 0) {
        return given;
    }
    std::wstring full(size, L'\0');
    full.resize(::GetFullPathNameW(given.c_str(), size, full.data(), nullptr));
    // Folders are limited to 12 characters less than files.
    if (full.size() < MAX_PATH - 12 || full.rfind(L"\\\\?\\", 0) == 0 || full.rfind(L"\\\\.\\", 0) == 0) {
        return given;
    }
    return full.rfind(L"\\\\", 0) == 0 ? L"\\\\?\\UNC" + full.substr(1) : L"\\\\?\\" + full;
}

std::string utf8(const std::wstring& text) {
    const int length = static_cast<int>(text.size());
    const int n =
        length == 0 ? 0 : ::WideCharToMultiByte(CP_UTF8, 0, text.data(), length, nullptr, 0, nullptr, nullptr);
    std::string out(static_cast<size_t>(n), '\0');
    if (n > 0) {
        ::WideCharToMultiByte(CP_UTF8, 0, text.data(), length, out.data(), n, nullptr, nullptr);
    }
    return out;
}

std::string message(DWORD error) {
    const std::error_condition condition = std::system_category().default_error_condition(static_cast<int>(error));
    if (condition.category() == std::generic_category()) {
        return condition.message();
    }
    wchar_t* text = nullptr;
    constexpr DWORD kFlags =
        FORMAT_MESSAGE_ALLOCATE_BUFFER | FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS;
    const DWORD n = ::FormatMessageW(kFlags, nullptr, error, 0, reinterpret_cast<wchar_t*>(&text), 0, nullptr);
    std::wstring line(text != nullptr ? text : L"", n);
    ::LocalFree(text);
    while (!line.empty() && (line.back() == L'\r' || line.back() == L'\n' || line.back() == L'.')) {
        line.pop_back();
    }
    return line.empty() ? format("error %lu", error) : utf8(line);
}

void fail(const char* what, const std::string& path, DWORD error) {
    LK_FAIL(LK_IO_ERROR, "cannot %s '%s': %s", what, path.c_str(), message(error).c_str());
}

}  // namespace lk::windows
