#include "base/guard.h"

#include <cstddef>
#include <cstring>

namespace lk {

namespace {

// Enough for a path of maximum length (4096) and a sentence.
constexpr size_t kMessageBytes = 6144;
thread_local char message_buffer[kMessageBytes];
thread_local ErrorAmounts amounts_buffer;

}  // namespace

void set_last_error(const char* message, ErrorAmounts amounts) noexcept {
    amounts_buffer = amounts;
    if (message == nullptr) {
        message = "";
    }
    const void* const end = std::memchr(message, '\0', kMessageBytes);
    size_t length = end == nullptr ? kMessageBytes : static_cast<size_t>(static_cast<const char*>(end) - message);
    if (length == kMessageBytes) {
        // Cut between characters: the text stays valid UTF-8.
        length = kMessageBytes - 1;
        while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80) {
            --length;
        }
    }
    std::memmove(message_buffer, message, length);
    message_buffer[length] = '\0';
}

const char* last_error() noexcept {
    return message_buffer;
}

ErrorAmounts last_error_amounts() noexcept {
    return amounts_buffer;
}

}  // namespace lk
