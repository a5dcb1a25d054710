#include "kv/state/state_checksum.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace lk::kv {

namespace {

constexpr uint64_t kBasis = 0xcbf29ce484222325u;

uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x100000001b3u;
    return hash ^ (hash >> 29);  // multiplication carries bits only upward: mix the high bits into the low ones
}

}  // namespace

StateChecksum::StateChecksum() {
    for (size_t i = 0; i < kLanes; ++i) {
        lanes_[i] = kBasis + i;
    }
}

size_t StateChecksum::add(std::span<const uint8_t> data) noexcept {
    uint64_t lanes[kLanes];  // in registers
    std::copy_n(lanes_, kLanes, lanes);
    size_t at = 0;
    for (; data.size() - at >= kStripe; at += kStripe) {
        for (size_t i = 0; i < kLanes; ++i) {
            uint64_t word;
            std::memcpy(&word, data.data() + at + i * sizeof(word), sizeof(word));
            lanes[i] = mix(lanes[i], word);
        }
    }
    std::copy_n(lanes, kLanes, lanes_);
    return at;
}

uint64_t StateChecksum::value(std::span<const uint8_t> rest) const noexcept {
    uint64_t hash = kBasis;
    for (size_t i = 0; i < kLanes; ++i) {
        uint64_t lane = lanes_[i];
        const size_t at = i * sizeof(lane);
        if (at < rest.size()) {
            uint64_t word = 0;
            std::memcpy(&word, rest.data() + at, std::min(sizeof(word), rest.size() - at));
            lane = mix(lane, word);
        }
        hash = mix(hash, lane);
    }
    return hash;
}

uint64_t state_checksum(std::span<const uint8_t> data) {
    StateChecksum sum;
    return sum.value(data.subspan(sum.add(data)));
}

}  // namespace lk::kv
