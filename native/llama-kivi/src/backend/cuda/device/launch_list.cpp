#include "backend/cuda/device/launch_list.h"

#include <cstring>

namespace lk::cuda {

namespace {

constexpr size_t kAlignment = 16;  // of an argument

// FNV-1a over eight bytes at a time.
uint64_t mix(uint64_t hash, uint64_t value) {
    constexpr uint64_t kPrime = 0x100000001b3;
    hash = (hash ^ value) * kPrime;
    return hash ^ hash >> 32;
}

}  // namespace

void LaunchList::restart(int n_rows, int part) {
    constexpr uint64_t kBasis = 0xcbf29ce484222325;
    launches_.clear();
    arguments_.clear();
    bytes_.clear();
    key_ = mix(mix(kBasis, static_cast<uint64_t>(n_rows)), static_cast<uint64_t>(part));
}

void LaunchList::add(const Launch& launch, std::span<const LaunchArgument> arguments) {
    launches_.push_back({launch, arguments_.size(), arguments.size()});
    for (const LaunchArgument& a : arguments) {
        const size_t first = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
        arguments_.push_back({first, a.bytes});
        bytes_.resize(first + a.bytes);
        std::memcpy(bytes_.data() + first, a.value, a.bytes);
    }
    key_ = mix(key_, reinterpret_cast<uintptr_t>(launch.function));
}

std::span<const std::byte> LaunchList::argument(size_t i, size_t which) const {
    const Range& range = arguments_[launches_[i].first_argument + which];
    return {bytes_.data() + range.first, range.bytes};
}

void** LaunchList::addresses(size_t i) {
    const Entry& entry = launches_[i];
    addresses_.clear();
    for (size_t a = 0; a < entry.n_arguments; ++a) {
        addresses_.push_back(bytes_.data() + arguments_[entry.first_argument + a].first);
    }
    return addresses_.data();
}

bool LaunchList::same_arguments(size_t i, const LaunchList& other) const {
    for (size_t a = 0; a < launches_[i].n_arguments; ++a) {
        const std::span<const std::byte> own = argument(i, a);
        const std::span<const std::byte> others = other.argument(i, a);
        if (own.size() != others.size() || std::memcmp(own.data(), others.data(), own.size()) != 0) {
            return false;
        }
    }
    return true;
}

std::optional<std::vector<size_t>> LaunchList::changes_from(const LaunchList& other) const {
    if (size() != other.size()) {
        return std::nullopt;
    }
    std::vector<size_t> changed;
    for (size_t i = 0; i < size(); ++i) {
        const Entry& own = launches_[i];
        const Entry& from = other.launches_[i];
        if (own.launch.function != from.launch.function || own.n_arguments != from.n_arguments) {
            return std::nullopt;
        }
        if (own.launch == from.launch && same_arguments(i, other)) {
            continue;
        }
        if (own.launch.function == nullptr) {
            return std::nullopt;
        }
        changed.push_back(i);
    }
    return changed;
}

}  // namespace lk::cuda
