// Kernel launches of a pass, recorded in order with copies of their arguments. Host code without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lk::cuda {

struct LaunchArgument {
    const void* value;
    size_t bytes;
};

struct LaunchGrid {
    unsigned x;
    unsigned y;
    unsigned z;

    bool operator==(const LaunchGrid&) const = default;
};

// A kernel, or a matmul of cuBLAS, whose only argument describes it.
struct Launch {
    const void* function;  // null: cuBLAS
    LaunchGrid grid;
    int threads;
    size_t shared_bytes;

    bool operator==(const Launch&) const = default;
};

class LaunchList {
public:
    // n_rows: rows of the pass. part: the pass's lists are numbered. Lists have the same key only if both are the same.
    void restart(int n_rows, int part = 0);
    // Copies the arguments.
    void add(const Launch& launch, std::span<const LaunchArgument> arguments);

    size_t size() const { return launches_.size(); }
    bool empty() const { return launches_.empty(); }
    const Launch& operator[](size_t i) const { return launches_[i].launch; }
    // Arguments of launch i, valid until the list changes.
    std::span<const std::byte> argument(size_t i, size_t which) const;
    size_t count_arguments(size_t i) const { return launches_[i].n_arguments; }
    // Addresses of the arguments of launch i, as CUDA's launch functions take them. Valid until the next call.
    void** addresses(size_t i);

    // A hash of the number of rows, the part and the functions in order. Lists with the same key may differ in grids
    // and arguments.
    uint64_t key() const { return key_; }
    // The launches whose grid, block, shared memory or arguments differ from those of `other`. Nothing if the functions
    // are others, or if a matmul of cuBLAS differs: a graph of `other` cannot be updated then.
    std::optional<std::vector<size_t>> changes_from(const LaunchList& other) const;

private:
    struct Entry {
        Launch launch;
        size_t first_argument;
        size_t n_arguments;
    };
    struct Range {
        size_t first;  // in bytes_
        size_t bytes;
    };

    bool same_arguments(size_t i, const LaunchList& other) const;

    std::vector<Entry> launches_;
    std::vector<Range> arguments_;
    std::vector<std::byte> bytes_;
    std::vector<void*> addresses_;  // of the launch that addresses was last called for
    uint64_t key_ = 0;
};

}  // namespace lk::cuda
