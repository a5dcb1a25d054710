// The memory that holds a buffer: host or device.
#pragma once

#include <cstddef>
#include <utility>

namespace lk {

// Of buffers, and of the parts of one that are addressed apart.
inline constexpr size_t kBufferAlignment = 256;

constexpr size_t aligned(size_t bytes) {
    return (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
}

class Memory {
public:
    virtual ~Memory() = default;

    virtual bool on_host() const = 0;
    // Zero-filled, aligned to kBufferAlignment. Throws std::bad_alloc, or LK_OUT_OF_DEVICE_MEMORY with requested and
    // free bytes.
    virtual void* allocate(size_t bytes) = 0;
    virtual void free(void* data, size_t bytes) noexcept = 0;
    // Within this memory.
    virtual void copy(void* to, const void* from, size_t bytes) = 0;
    virtual void zero(void* data, size_t bytes) = 0;
    // Copies to and from the host. Synchronous.
    virtual void read(void* to, const void* from, size_t bytes) = 0;
    virtual void write(void* to, const void* from, size_t bytes) = 0;
    // The host memory with the fastest copies from this memory.
    virtual Memory& nearest_host();
    // Whether small buffers are cheap and their memory comes back. Otherwise they are better taken from slabs.
    virtual bool pools_buffers() const { return false; }
};

Memory& host_memory();

// An array of T in a memory, zero-filled at creation. Copies stay in the same memory.
template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(Memory& memory, size_t size)
        : memory_(&memory),
          data_(size > 0 ? static_cast<T*>(memory.allocate(size * sizeof(T))) : nullptr),
          size_(size) {}
    Buffer(const Buffer& other) : Buffer(*other.memory_, other.size_) {
        if (size_ > 0) {
            memory_->copy(data_, other.data_, bytes());
        }
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() {
        if (data_ != nullptr) {
            memory_->free(data_, bytes());
        }
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    size_t bytes() const { return size_ * sizeof(T); }
    Memory& memory() const { return *memory_; }

private:
    void swap(Buffer& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    Memory* memory_ = &host_memory();
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace lk
