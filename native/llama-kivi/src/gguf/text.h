// Text of untrusted files: UTF-8 checks, and quoting for messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lk {

// Offset of the first NUL or invalid UTF-8 byte; text.size() if there is none.
size_t first_bad_byte(std::string_view text);

// Quotes text from a file for a message: control characters and invalid UTF-8 become '?', long text is cut.
std::string quote_text(std::string_view text);

}  // namespace lk
