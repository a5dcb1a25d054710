#include "base/memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/pages.h"

namespace lk {

namespace {

constexpr std::align_val_t kAlignment{kBufferAlignment};

// Buffers of at least this size are mapped: freeing them returns their memory to the system, while the allocator may
// keep it in a fragmented heap.
constexpr size_t kMapped = 256 << 10;

class HostMemory final : public Memory {
public:
    bool on_host() const override { return true; }
    void* allocate(size_t bytes) override {
        if (bytes >= kMapped) {
            return map_pages(bytes);
        }
        void* data = ::operator new(bytes, kAlignment);
        std::memset(data, 0, bytes);
        return data;
    }
    void free(void* data, size_t bytes) noexcept override {
        if (bytes >= kMapped) {
            unmap_pages(data, bytes);
        } else {
            ::operator delete(data, kAlignment);
        }
    }
    void copy(void* to, const void* from, size_t bytes) override {
        if (bytes > 0) {  // memcpy must not get the null pointers of an empty copy
            std::memcpy(to, from, bytes);
        }
    }
    void zero(void* data, size_t bytes) override { std::memset(data, 0, bytes); }
    void read(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
    void write(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
};

}  // namespace

Memory& host_memory() {
    static HostMemory memory;
    return memory;
}

Memory& Memory::nearest_host() {
    return host_memory();
}

}  // namespace lk
