#include <sys/mman.h>

#include <cstddef>
#include <new>

#include "base/pages.h"

namespace lk {

void* map_pages(size_t bytes) {
    void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        throw std::bad_alloc();
    }
    return data;
}

void unmap_pages(void* data, size_t bytes) noexcept {
    ::munmap(data, bytes);
}

}  // namespace lk
