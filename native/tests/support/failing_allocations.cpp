#include "support/failing_allocations.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef _WIN32
#include <malloc.h>
#endif

namespace {

std::atomic<int64_t> left{0};  // allocations until the failure; 0: off
std::atomic<bool> onward{false};
std::atomic<bool> happened{false};
std::atomic<int64_t> requested{0};

bool fails() {
    if (left.load(std::memory_order_relaxed) <= 0) {
        return onward.load(std::memory_order_relaxed) && happened.load(std::memory_order_relaxed);
    }
    if (left.fetch_sub(1) == 1) {
        happened = true;
        return true;
    }
    return false;
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (fails()) {
        return nullptr;
    }
    requested.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
    size = std::max<std::size_t>(size, 1);
    if (alignment <= alignof(std::max_align_t)) {
        return std::malloc(size);
    }
#ifdef _WIN32
    return ::_aligned_malloc(size, alignment);
#else
    void* data = nullptr;
    return ::posix_memalign(&data, alignment, size) == 0 ? data : nullptr;
#endif
}

// Windows frees aligned memory by a function of its own.
void release_aligned(void* data) noexcept {
#ifdef _WIN32
    ::_aligned_free(data);
#else
    std::free(data);
#endif
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    void* data = allocate(size, alignment);
    if (data == nullptr) {
        throw std::bad_alloc();
    }
    return data;
}

}  // namespace

namespace lk::test {

AllocatedBytes::AllocatedBytes() : before_(::requested) {}

int64_t AllocatedBytes::count() const {
    return ::requested - before_;
}

FailingAllocation::FailingAllocation(int64_t nth, bool all_following) {
    ::happened = false;
    ::onward = all_following;
    ::left = nth;
}

FailingAllocation::~FailingAllocation() {
    ::left = 0;
    ::onward = false;
}

bool FailingAllocation::happened() const {
    return ::happened;
}

}  // namespace lk::test

// NOLINTBEGIN: the replaceable forms of operator new and delete; the array forms call these.
void* operator new(std::size_t size) {
    return allocate_or_throw(size, 1);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, 1);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size) {
    return allocate_or_throw(size, 1);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, 1);
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* data) noexcept {
    std::free(data);
}
void operator delete(void* data, std::size_t) noexcept {
    std::free(data);
}
void operator delete(void* data, std::align_val_t) noexcept {
    release_aligned(data);
}
void operator delete(void* data, std::size_t, std::align_val_t) noexcept {
    release_aligned(data);
}
void operator delete(void* data, const std::nothrow_t&) noexcept {
    std::free(data);
}
void operator delete(void* data, std::align_val_t, const std::nothrow_t&) noexcept {
    release_aligned(data);
}
void operator delete[](void* data) noexcept {
    std::free(data);
}
void operator delete[](void* data, std::size_t) noexcept {
    std::free(data);
}
void operator delete[](void* data, std::align_val_t) noexcept {
    release_aligned(data);
}
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept {
    release_aligned(data);
}
void operator delete[](void* data, const std::nothrow_t&) noexcept {
    std::free(data);
}
void operator delete[](void* data, std::align_val_t, const std::nothrow_t&) noexcept {
    release_aligned(data);
}
// NOLINTEND
