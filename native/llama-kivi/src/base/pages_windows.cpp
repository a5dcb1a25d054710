#include <cstddef>
#include <new>

#include "base/pages.h"
#include "base/windows.h"

namespace lk {

void* map_pages(size_t bytes) {
    void* const data = ::VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (data == nullptr) {
        throw std::bad_alloc();
    }
    return data;
}

void unmap_pages(void* data, size_t) noexcept {
    ::VirtualFree(data, 0, MEM_RELEASE);
}

}  // namespace lk
