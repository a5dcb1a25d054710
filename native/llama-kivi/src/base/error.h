// The engine's one exception type. It carries the status that the C interface returns.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "llama_kivi.h"

namespace lk {

class Error : public std::exception {
public:
    // needed, available: see lk_last_error_amounts.
    Error(lk_status status, std::string message, uint64_t needed = 0, uint64_t available = 0)
        : status_(status), message_(std::move(message)), needed_(needed), available_(available) {}

    lk_status status() const { return status_; }
    uint64_t needed() const { return needed_; }
    uint64_t available() const { return available_; }
    const char* what() const noexcept override { return message_.c_str(); }

private:
    lk_status status_;
    std::string message_;
    uint64_t needed_;
    uint64_t available_;
};

// The printf whose formats the compiler checks: MinGW's own one is not the C runtime's.
#ifdef __MINGW32__
#define LK_PRINTF __MINGW_PRINTF_FORMAT
#else
#define LK_PRINTF printf
#endif

// Formats printf-style into a string.
[[gnu::format(LK_PRINTF, 1, 2)]] inline std::string format(const char* text, ...) {
    va_list args;
    va_start(args, text);
    va_list again;
    va_copy(again, args);
    const int length = std::vsnprintf(nullptr, 0, text, args);
    va_end(args);
    std::string out(length > 0 ? static_cast<size_t>(length) : 0, '\0');
    if (length > 0) {
        std::vsnprintf(out.data(), out.size() + 1, text, again);
    }
    va_end(again);
    return out;
}

// Throws lk::Error(status, printf-style message).
#define LK_FAIL(status, ...) throw ::lk::Error((status), ::lk::format(__VA_ARGS__))

// Throws unless the condition holds. The message says what is wrong, where, and what to do.
#define LK_CHECK(condition, status, ...)    \
    do {                                    \
        if (!(condition)) {                 \
            LK_FAIL((status), __VA_ARGS__); \
        }                                   \
    } while (false)

}  // namespace lk
