// Weights on the device, by the host addresses under which operations name them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "base/memory.h"

namespace lk::cuda {

class WeightMap {
public:
    // Copies weights or norms to the device. Does nothing if they are there, such as tied weights.
    void upload(Memory& memory, const void* host, size_t bytes);
    // Device address of weights at a host address. Throws LK_INTERNAL_ERROR if they are not on the device.
    const uint8_t* at(const void* host) const;
    const float* floats(const void* host) const { return reinterpret_cast<const float*>(at(host)); }

private:
    std::unordered_map<const void*, Buffer<uint8_t>> weights_;
};

}  // namespace lk::cuda
