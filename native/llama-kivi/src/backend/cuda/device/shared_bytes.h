// Shared memory of kernels that hosts have too, and stand-ins for it there. C++17, with or without CUDA.
#pragma once

#include <cstdint>

#include "backend/cuda/device/both.h"

namespace lk::cuda {

// A position in shared memory. Kernels have its address in 32 bits, which takes fewer instructions than a pointer.
class SharedBytes {
public:
#ifdef __CUDACC__
    using Address = unsigned;
    LK_BOTH explicit SharedBytes(uint8_t* p) : at_(static_cast<unsigned>(__cvta_generic_to_shared(p))) {}
    LK_BOTH uint8_t* pointer() const {
        return static_cast<uint8_t*>(__cvta_shared_to_generic(at_));
    }
#else
    using Address = uintptr_t;
    explicit SharedBytes(uint8_t* p) : at_(reinterpret_cast<uintptr_t>(p)) {}
    uint8_t* pointer() const {
        return reinterpret_cast<uint8_t*>(at_);
    }
#endif
    SharedBytes() = default;

    LK_BOTH SharedBytes operator+(int bytes) const {
        SharedBytes result = *this;
        result.at_ += static_cast<Address>(bytes);
        return result;
    }
    LK_BOTH bool operator==(SharedBytes other) const {
        return at_ == other.at_;
    }

    template <class T>
    LK_BOTH T read(int offset = 0) const {
        return *reinterpret_cast<const T*>((*this + offset).pointer());
    }
    template <class T>
    LK_BOTH void write(int offset, T value) const {
        *reinterpret_cast<T*>((*this + offset).pointer()) = value;
    }
    // Bytes after the preceding multiple of four. The position is even.
    LK_BOTH int after_word() const {
        return static_cast<int>(at_ & 2);
    }

private:
    Address at_;
};

// kCount words, `offset` bytes (a multiple of four) after an even position. Up to two bytes before them and four bytes
// after them are read too.
template <int kCount>
LK_BOTH void read_words(SharedBytes even, int offset, unsigned (&words)[kCount]) {
    const int after = even.after_word();
    const SharedBytes aligned = even + (offset - after);
    auto low = aligned.read<unsigned>();
    LK_UNROLL
    for (int i = 0; i < kCount; ++i) {
        const auto high = aligned.read<unsigned>(4 * i + 4);
        words[i] = funnel_right(low, high, 8 * after);
        low = high;
    }
}

LK_BOTH float read_half(SharedBytes at) {
    return half_value(at.read<uint16_t>());
}

}  // namespace lk::cuda
