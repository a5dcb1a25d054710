// Memory of a cache in slots of one size: page blocks, or the rings of sequences. Slots are taken from slabs, so that
// many small allocations do not fragment the heap, and an empty slab goes back to the system. In a memory that pools
// buffers itself, every slot has a slab.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace lk::kv {

class SlotPool;

struct Slab {
    Buffer<uint8_t> data;        // [slots, stride]
    std::vector<uint8_t*> free;  // released slots, and those that were never taken
    size_t n_used = 0;
    size_t n_fresh = 0;  // the first n_fresh elements of `free` were never taken
};

// Owns one slot of a pool.
class Slot {
public:
    Slot() = default;
    Slot(Slot&& other) noexcept { swap(other); }
    Slot& operator=(Slot&& other) noexcept {
        Slot taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~Slot();

    uint8_t* data() { return data_; }
    const uint8_t* data() const { return data_; }
    size_t bytes() const;
    Memory& memory() const;
    explicit operator bool() const { return data_ != nullptr; }

private:
    friend class SlotPool;
    Slot(SlotPool& pool, Slab& slab, uint8_t* data) : pool_(&pool), slab_(&slab), data_(data) {}
    void swap(Slot& other) noexcept {
        std::swap(pool_, other.pool_);
        std::swap(slab_, other.slab_);
        std::swap(data_, other.data_);
    }

    SlotPool* pool_ = nullptr;
    Slab* slab_ = nullptr;
    uint8_t* data_ = nullptr;
};

// Outlives its slots. Not thread-safe.
class SlotPool {
public:
    SlotPool(Memory& memory, size_t slot_bytes);
    SlotPool(const SlotPool&) = delete;  // slots point to their pool
    SlotPool& operator=(const SlotPool&) = delete;

    Slot take();  // zero-filled; throws as Memory::allocate does
    Slot copy(const Slot& slot);

    Memory& memory() const { return *memory_; }
    size_t slot_bytes() const { return slot_bytes_; }
    uint64_t used_bytes() const { return n_used_ * slot_bytes_; }  // slots that are taken
    uint64_t held_bytes() const { return slabs_.size() * slots_per_slab_ * stride_; }

private:
    friend class Slot;
    Slab& slab_with_room();
    Slot take_uncleared(bool& fresh);
    void release(Slab& slab, uint8_t* data) noexcept;

    Memory* memory_;
    size_t slot_bytes_;
    size_t stride_;
    size_t slots_per_slab_;
    size_t n_used_ = 0;
    std::vector<std::unique_ptr<Slab>> slabs_;
};

inline Slot::~Slot() {
    if (data_ != nullptr) {
        pool_->release(*slab_, data_);
    }
}

inline size_t Slot::bytes() const {
    return data_ != nullptr ? pool_->slot_bytes() : 0;
}

inline Memory& Slot::memory() const {
    return pool_->memory();
}

}  // namespace lk::kv
