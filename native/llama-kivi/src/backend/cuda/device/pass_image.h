// Memory for the descriptors of a pass: the host writes them to pinned memory and copies them to the device at once.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cuda/device/memory.h"
#include "base/memory.h"

namespace lk::cuda {

class PassImage {
public:
    // Discards the content.
    void reserve(Memory& memory, size_t bytes) {
        grow(device_, memory, bytes);
        host_.reserve(bytes);
    }
    uint8_t* host() { return host_.data(); }
    const uint8_t* device() const { return device_.data(); }
    void upload(size_t bytes, cudaStream_t stream) {
        if (bytes > 0) {
            LK_CUDA(cudaMemcpyAsync(device_.data(), host_.data(), bytes, cudaMemcpyHostToDevice, stream));
        }
    }

private:
    PinnedBuffer host_;
    Buffer<uint8_t> device_;
};

// Keeps the memory of ended passes for later ones, so that a pass allocates only if it outgrows them. Must outlive the
// images that it lends.
class PassImages {
public:
    struct GiveBack {
        PassImages* to;
        void operator()(PassImage* image) const { to->spare_.emplace_back(image); }  // within the reserved capacity
    };
    using Lent = std::unique_ptr<PassImage, GiveBack>;

    Lent take() {
        if (spare_.empty()) {
            spare_.reserve(n_images_ + 1);
            spare_.push_back(std::make_unique<PassImage>());
            ++n_images_;
        }
        Lent image(spare_.back().release(), GiveBack{this});
        spare_.pop_back();
        return image;
    }

private:
    std::vector<std::unique_ptr<PassImage>> spare_;
    size_t n_images_ = 0;
};

}  // namespace lk::cuda
