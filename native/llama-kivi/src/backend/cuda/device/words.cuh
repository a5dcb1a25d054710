// Loads from addresses that are multiples of two.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lk::cuda {

__device__ inline uint16_t load_u16(const uint8_t* p) {
    return *reinterpret_cast<const uint16_t*>(p);
}

// Reads four bytes at an even address.
__device__ inline uint32_t load_u32(const uint8_t* p) {
    return load_u16(p) | static_cast<uint32_t>(load_u16(p + 2)) << 16;
}

enum class Space { global, shared };

// Reads kCount words at an even address. If it is not a multiple of four, the two bytes before and after are read too.
// In shared memory the address is computed from p, so that the compiler knows the address space; in global memory that
// is slower.
template <Space kSpace = Space::global, int kCount>
__device__ inline void load_words(const uint8_t* p, unsigned (&words)[kCount]) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const auto* const aligned = kSpace == Space::shared ? reinterpret_cast<const unsigned*>(p - (address & 2))
                                                        : reinterpret_cast<const unsigned*>(address & ~uintptr_t{3});
    const unsigned shift = static_cast<unsigned>(address & 2) * 8;
    unsigned low = aligned[0];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const unsigned high = i + 1 < kCount || shift != 0 ? aligned[i + 1] : 0;
        words[i] = __funnelshift_r(low, high, shift);
        low = high;
    }
}

// An even address in shared memory, for reads at several distances that are multiples of four: unlike load_words, its
// alignment is found once.
struct EvenAddress {
    EvenAddress() = default;
    __device__ explicit EvenAddress(const uint8_t* p)
        : aligned(p - (reinterpret_cast<uintptr_t>(p) & 2)),
          shift(static_cast<unsigned>(reinterpret_cast<uintptr_t>(p) & 2) * 8) {}

    // further: bits to shift each word right. They are replaced by other bits, which the caller masks.
    template <int kCount>
    __device__ void load(int distance, unsigned (&words)[kCount], unsigned further = 0) const {
        const auto* const from = reinterpret_cast<const unsigned*>(aligned + distance);
        unsigned low = from[0];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const unsigned high = i + 1 < kCount || shift != 0 ? from[i + 1] : 0;
            words[i] = __funnelshift_r(low, high, shift + further);
            low = high;
        }
    }

    const uint8_t* aligned;
    unsigned shift;
};

}  // namespace lk::cuda
