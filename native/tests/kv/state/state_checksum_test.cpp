#include "kv/state/state_checksum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace lk::kv {
namespace {

std::vector<uint8_t> some_bytes(size_t n) {
    std::vector<uint8_t> bytes(n);
    for (size_t i = 0; i < n; ++i) {
        bytes[i] = static_cast<uint8_t>((i * 2654435761u) >> 13);
    }
    return bytes;
}

// The definition, word by word: eight lanes, so that their multiplications overlap.
uint64_t expected(std::span<const uint8_t> data) {
    const auto mix = [](uint64_t hash, uint64_t word) {
        hash = (hash ^ word) * 0x100000001b3u;
        return hash ^ (hash >> 29);
    };
    uint64_t lanes[8];
    for (uint64_t i = 0; i < 8; ++i) {
        lanes[i] = 0xcbf29ce484222325u + i;
    }
    for (size_t i = 0; i * 8 < data.size(); ++i) {
        uint64_t word = 0;
        std::memcpy(&word, data.data() + i * 8, std::min<size_t>(8, data.size() - i * 8));
        lanes[i % 8] = mix(lanes[i % 8], word);
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (const uint64_t lane : lanes) {
        hash = mix(hash, lane);
    }
    return hash;
}

TEST(StateChecksum, FollowsItsDefinition) {
    for (size_t n = 0; n < 300; ++n) {
        const std::vector<uint8_t> bytes = some_bytes(n);
        EXPECT_EQ(state_checksum(bytes), expected(bytes)) << n << " bytes";
    }
}

TEST(StateChecksum, DoesNotDependOnThePieces) {
    const std::vector<uint8_t> bytes = some_bytes(5000);
    for (const size_t piece : {1, 63, 64, 65, 1000}) {
        StateChecksum sum;
        size_t summed = 0;
        for (size_t end = piece; end < bytes.size(); end += piece) {
            summed += sum.add(std::span(bytes).subspan(summed, end - summed));
        }
        summed += sum.add(std::span(bytes).subspan(summed));
        EXPECT_EQ(sum.value(std::span(bytes).subspan(summed)), state_checksum(bytes)) << piece << " bytes a piece";
    }
}

TEST(StateChecksum, EveryBitCounts) {
    std::vector<uint8_t> bytes = some_bytes(200);
    const uint64_t sum = state_checksum(bytes);
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        bytes[bit / 8] ^= 1 << bit % 8;
        EXPECT_NE(state_checksum(bytes), sum) << "bit " << bit;
        bytes[bit / 8] ^= 1 << bit % 8;
    }
}

}  // namespace
}  // namespace lk::kv
