// Reads of values that may be unaligned in a file.
#pragma once

#include <cstdint>
#include <cstring>

namespace lk {

template <class T>
T load(const uint8_t* bytes) {
    T value;
    std::memcpy(&value, bytes, sizeof(T));
    return value;
}

}  // namespace lk
