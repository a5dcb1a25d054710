// Runs device functions that take their threads as an argument (see backend/cuda/device/lanes.cuh) on the host: a fiber
// per thread of a block, switched at every exchange and barrier.
#pragma once

#if defined(__linux__)
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace lk::test {

class LaneFibers {
    struct Slot {
        uint8_t lanes[32][8];
    };
    struct Barrier {
        int arrived = 0;
        int generation = 0;
    };
    struct Warp {
        Slot slots[2];
        Barrier barrier;
    };

public:
    // Runs body(threads) with n threads, a multiple of 32.
    template <class Body>
    static void run(int n, const Body& body) {
        LaneFibers block(n);
        block.body_ = [&](int thread) { body(Threads{&block, thread}); };
        block.run();
    }

    struct Threads {
        LaneFibers* block;
        int own;

        int thread() const { return own; }
        int threads() const { return static_cast<int>(block->fibers_.size()); }
        int lane() const { return own % 32; }
        template <class T>
        T exchange(T x, int mask) const {
            Slot& slot = publish(x);
            T other;
            std::memcpy(&other, slot.lanes[lane() ^ mask], sizeof other);
            return other;
        }
        uint32_t vote(bool x) const {
            Slot& slot = publish(x);
            uint32_t votes = 0;
            for (int i = 0; i < 32; ++i) {
                votes |= static_cast<uint32_t>(slot.lanes[i][0] != 0) << i;
            }
            return votes;
        }
        uint32_t sum(uint32_t x) const {
            for (int mask = 16; mask > 0; mask /= 2) {
                x += exchange(x, mask);
            }
            return x;
        }
        uint32_t largest(uint32_t x) const {
            for (int mask = 16; mask > 0; mask /= 2) {
                x = std::max(x, exchange(x, mask));
            }
            return x;
        }
        void sync_warp() const { block->wait(block->warps_[own / 32].barrier, 32, own); }
        void sync_block() const { block->wait(block->barrier_, threads(), own); }

    private:
        // Two slots in turns: a lane may publish its next value before the others have read this one.
        template <class T>
        Slot& publish(T x) const {
            Warp& warp = block->warps_[own / 32];
            Slot& slot = warp.slots[block->fibers_[own].exchanges++ % 2];
            static_assert(sizeof x <= sizeof slot.lanes[0]);
            std::memset(slot.lanes[lane()], 0, sizeof slot.lanes[0]);
            std::memcpy(slot.lanes[lane()], &x, sizeof x);
            sync_warp();
            return slot;
        }
    };

private:
    struct Fiber {
        ucontext_t context;
        std::unique_ptr<uint8_t[]> stack;
        unsigned exchanges = 0;
        bool done = false;
    };
    static constexpr size_t kStackBytes = 64 << 10;

    explicit LaneFibers(int n) : fibers_(n), warps_(n / 32) {}

    void run() {
        for (size_t i = 0; i < fibers_.size(); ++i) {
            prepare(static_cast<unsigned>(i));
        }
        for (bool running = true; running;) {
            running = false;
            for (Fiber& fiber : fibers_) {
                if (!fiber.done) {
                    running = true;
                    swapcontext(&scheduler_, &fiber.context);
                }
            }
        }
    }
    void prepare(unsigned thread) {
        Fiber& fiber = fibers_[thread];
        fiber.stack = std::make_unique<uint8_t[]>(kStackBytes);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = &scheduler_;
        const auto address = reinterpret_cast<uintptr_t>(this);
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(&LaneFibers::enter), 3, static_cast<unsigned>(address),
                    static_cast<unsigned>(static_cast<uint64_t>(address) >> 32), thread);
    }
    static void enter(unsigned low, unsigned high, unsigned thread) {
        const uint64_t address = low | static_cast<uint64_t>(high) << 32;
        auto& block = *reinterpret_cast<LaneFibers*>(static_cast<uintptr_t>(address));
        block.body_(static_cast<int>(thread));
        block.fibers_[thread].done = true;
    }
    void wait(Barrier& barrier, int n, int thread) {
        const int generation = barrier.generation;
        if (++barrier.arrived == n) {
            barrier.arrived = 0;
            ++barrier.generation;
            return;
        }
        while (barrier.generation == generation) {
            swapcontext(&fibers_[thread].context, &scheduler_);
        }
    }

    std::vector<Fiber> fibers_;
    std::vector<Warp> warps_;
    Barrier barrier_;
    ucontext_t scheduler_{};
    std::function<void(int)> body_;
};

}  // namespace lk::test
#endif
