// Host memory through which the contents of another memory are copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "base/error.h"
#include "base/memory.h"
#include "llama_kivi.h"

namespace lk {

// Keeps its memory between copies, because the page faults of fresh memory take longer than the copy. Not thread-safe.
class StagingBuffer {
public:
    explicit StagingBuffer(Memory& memory) : memory_(&memory) {}

    // Returns memory for `bytes` bytes with any content, valid until the next call. Throws std::bad_alloc.
    uint8_t* reserve(size_t bytes) {
        if (bytes > buffer_.size()) {
            buffer_ = {};
            buffer_ = allocate(bytes);
        }
        return buffer_.data();
    }

private:
    // Pinned memory has limits of its own, below the free memory.
    Buffer<uint8_t> allocate(size_t bytes) const {
        try {
            return {memory_->nearest_host(), bytes};
        } catch (const std::bad_alloc&) {
            return {host_memory(), bytes};
        } catch (const Error& e) {
            if (e.status() != LK_OUT_OF_MEMORY) {
                throw;
            }
            return {host_memory(), bytes};
        }
    }

    Memory* memory_;
    Buffer<uint8_t> buffer_;
};

}  // namespace lk
