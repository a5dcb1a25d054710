// Vectors of 16 bytes that compilers map to SSE2, NEON or plain registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace lk::cpu::portable {

inline constexpr int kVectorBytes = 16;
using Shorts = int16_t __attribute__((vector_size(kVectorBytes)));
using Ints = int32_t __attribute__((vector_size(kVectorBytes)));
using Floats = float __attribute__((vector_size(kVectorBytes)));

template <class Vector>
Vector load(const void* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <class Vector>
void store(void* to, Vector x) {
    std::memcpy(to, &x, sizeof x);
}

inline Floats to_floats(Ints x) {
    return __builtin_convertvector(x, Floats);
}

}  // namespace lk::cpu::portable
