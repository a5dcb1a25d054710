// Memory of the system's own, in whole pages.
#pragma once

#include <cstddef>

namespace lk {

// Allocates zero-filled pages that hold `bytes` bytes. Throws std::bad_alloc.
void* map_pages(size_t bytes);

// Returns pages to the system. bytes: the size given to map_pages.
void unmap_pages(void* data, size_t bytes) noexcept;

}  // namespace lk
