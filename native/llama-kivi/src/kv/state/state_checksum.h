// Checksum of saved states: FNV-1a over 64-bit words in eight lanes, word i in lane i % 8, then over the lanes. The
// last word is padded with zeros. A single lane would wait for its multiplications, at a fraction of the speed of
// memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lk::kv {

class StateChecksum {
public:
    static constexpr size_t kStripe = 64;  // bytes: one word of every lane

    StateChecksum();

    // Adds the whole stripes of the data; returns their bytes. The rest is added again with what follows it.
    size_t add(std::span<const uint8_t> data) noexcept;
    // The checksum of the added stripes and the last bytes, fewer than a stripe.
    uint64_t value(std::span<const uint8_t> rest) const noexcept;

private:
    static constexpr size_t kLanes = kStripe / sizeof(uint64_t);

    uint64_t lanes_[kLanes];
};

uint64_t state_checksum(std::span<const uint8_t> data);

}  // namespace lk::kv
