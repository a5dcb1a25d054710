#include "gguf/text.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lk {

namespace {

// Length of the UTF-8 sequence at the start of text; 0 if text is empty or the sequence is invalid (RFC 3629: no
// overlong forms, no surrogates, nothing above U+10FFFF).
size_t utf8_sequence(std::string_view text) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0u; };
    const auto continues = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
    const uint32_t first = byte(0);
    if (first < 0x80) {
        return text.empty() ? 0 : 1;
    }
    if (first >= 0xC2 && first <= 0xDF) {
        return continues(1) ? 2 : 0;
    }
    if (first >= 0xE0 && first <= 0xEF) {
        const bool overlong = first == 0xE0 && byte(1) < 0xA0;
        const bool surrogate = first == 0xED && byte(1) >= 0xA0;
        return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const bool overlong = first == 0xF0 && byte(1) < 0x90;
        const bool too_high = first == 0xF4 && byte(1) >= 0x90;
        return continues(1) && continues(2) && continues(3) && !overlong && !too_high ? 4 : 0;
    }
    return 0;
}

}  // namespace

size_t first_bad_byte(std::string_view text) {
    size_t i = 0;
    while (i < text.size() && text[i] != '\0') {
        const size_t length = utf8_sequence(text.substr(i));
        if (length == 0) {
            break;
        }
        i += length;
    }
    return i;
}

std::string quote_text(std::string_view text) {
    constexpr size_t max_bytes = 80;
    std::string out = "'";
    size_t i = 0;
    while (i < text.size() && i < max_bytes) {
        const size_t length = utf8_sequence(text.substr(i));
        const bool printable = length > 1 || (length == 1 && text[i] >= 0x20 && text[i] != 0x7F);
        out += printable ? text.substr(i, length) : "?";
        i += std::max<size_t>(length, 1);
    }
    out += i < text.size() ? "...'" : "'";
    return out;
}

}  // namespace lk
