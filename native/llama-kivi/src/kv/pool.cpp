#include "kv/pool.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace lk::kv {

namespace {

constexpr size_t kSlabBytes = 1 << 20;  // a larger slot has a slab of its own
constexpr size_t kMostSlots = 64;       // per slab

}  // namespace

SlotPool::SlotPool(Memory& memory, size_t slot_bytes)
    : memory_(&memory),
      slot_bytes_(slot_bytes),
      stride_(aligned(std::max<size_t>(1, slot_bytes))),
      slots_per_slab_(memory.pools_buffers() ? 1 : std::clamp<size_t>(kSlabBytes / stride_, 1, kMostSlots)) {}

// The fullest slab that has room, so that the others empty.
Slab& SlotPool::slab_with_room() {
    Slab* best = nullptr;
    for (const std::unique_ptr<Slab>& slab : slabs_) {
        if (!slab->free.empty() && (best == nullptr || slab->n_used > best->n_used)) {
            best = slab.get();
        }
    }
    if (best != nullptr) {
        return *best;
    }
    auto slab = std::make_unique<Slab>();
    slab->free.resize(slots_per_slab_);
    slabs_.reserve(slabs_.size() + 1);
    slab->data = Buffer<uint8_t>(*memory_, slots_per_slab_ * stride_);
    for (size_t i = 0; i < slots_per_slab_; ++i) {
        slab->free[i] = slab->data.data() + (slots_per_slab_ - 1 - i) * stride_;
    }
    slab->n_fresh = slots_per_slab_;
    slabs_.push_back(std::move(slab));
    return *slabs_.back();
}

Slot SlotPool::take_uncleared(bool& fresh) {
    Slab& slab = slab_with_room();
    fresh = slab.n_fresh == slab.free.size();
    slab.n_fresh -= fresh ? 1 : 0;
    uint8_t* const data = slab.free.back();
    slab.free.pop_back();
    ++slab.n_used;
    ++n_used_;
    return Slot(*this, slab, data);
}

Slot SlotPool::take() {
    bool fresh = false;
    Slot slot = take_uncleared(fresh);
    if (!fresh) {
        memory_->zero(slot.data(), slot_bytes_);
    }
    return slot;
}

Slot SlotPool::copy(const Slot& slot) {
    bool fresh = false;
    Slot copied = take_uncleared(fresh);
    memory_->copy(copied.data(), slot.data(), slot_bytes_);
    return copied;
}

// Keeps one empty slab while others are in use, because sequences often end when others begin.
void SlotPool::release(Slab& slab, uint8_t* data) noexcept {
    slab.free.push_back(data);  // its capacity suffices
    --slab.n_used;
    --n_used_;
    if (slab.n_used > 0) {
        return;
    }
    const auto is_empty = [](const std::unique_ptr<Slab>& s) { return s->n_used == 0; };
    const auto other = [&](const std::unique_ptr<Slab>& s) { return s.get() != &slab && s->n_used == 0; };
    if (n_used_ == 0) {
        std::erase_if(slabs_, is_empty);
    } else if (std::any_of(slabs_.begin(), slabs_.end(), other)) {
        std::erase_if(slabs_, [&](const std::unique_ptr<Slab>& s) { return s.get() == &slab; });
    }
}

}  // namespace lk::kv
