#include "backend/cuda/device/weight_map.h"

#include <utility>

#include "base/error.h"

namespace lk::cuda {

void WeightMap::upload(Memory& memory, const void* host, size_t bytes) {
    if (bytes == 0 || weights_.count(host) > 0) {
        return;
    }
    constexpr size_t kPadding = 16;  // kernels read whole words around unaligned addresses; see load_words
    Buffer<uint8_t> buffer(memory, bytes + kPadding);
    memory.write(buffer.data(), host, bytes);
    weights_.emplace(host, std::move(buffer));
}

const uint8_t* WeightMap::at(const void* host) const {
    const auto found = weights_.find(host);
    LK_CHECK(found != weights_.end(), LK_INTERNAL_ERROR, "a kernel needs weights that are not on the GPU");
    return found->second.data();
}

}  // namespace lk::cuda
