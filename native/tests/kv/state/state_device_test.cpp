// Saving sequences from, and loading them into, memory that the host cannot read.
#include <cstring>
#include <new>

#include "base/error.h"
#include "kv/state/state.h"
#include "support/failing_allocations.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::append;
using test::Shape;
using test::Tokens;
using test::Whole;

const ModelKey kModel{.architecture = "llama", .rope_base = 10000, .weights = 42};

// Host memory beside a device, of which none may be left.
class PinnedMemory final : public Memory {
public:
    bool on_host() const override { return true; }
    void* allocate(size_t bytes) override {
        if (fails) {
            throw Error(LK_OUT_OF_MEMORY, "no pinned memory is left");
        }
        ++n_allocations;
        return host_memory().allocate(bytes);
    }
    void free(void* data, size_t bytes) noexcept override { host_memory().free(data, bytes); }
    void copy(void* to, const void* from, size_t bytes) override { host_memory().copy(to, from, bytes); }
    void zero(void* data, size_t bytes) override { host_memory().zero(data, bytes); }
    void read(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
    void write(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }

    bool fails = false;
    int n_allocations = 0;
};

// A device that counts the copies to and from the host.
class CountingMemory final : public Memory {
public:
    bool on_host() const override { return false; }
    void* allocate(size_t bytes) override { return host_memory().allocate(bytes); }
    void free(void* data, size_t bytes) noexcept override { host_memory().free(data, bytes); }
    void copy(void* to, const void* from, size_t bytes) override { host_memory().copy(to, from, bytes); }
    void zero(void* data, size_t bytes) override { host_memory().zero(data, bytes); }
    void read(void* to, const void* from, size_t bytes) override {
        ++n_copies;
        copied_bytes += bytes;
        std::memcpy(to, from, bytes);
    }
    void write(void* to, const void* from, size_t bytes) override {
        ++n_copies;
        copied_bytes += bytes;
        std::memcpy(to, from, bytes);
    }
    Memory& nearest_host() override { return pinned; }
    bool pools_buffers() const override { return true; }

    PinnedMemory pinned;
    int n_copies = 0;
    size_t copied_bytes = 0;
};

std::vector<uint8_t> save(Cache& cache, int seq) {
    std::vector<uint8_t> bytes(state_size(Whole(cache), seq));
    save_state(Whole(cache), seq, kModel, bytes);
    return bytes;
}

const Shape kShape{.n_layer = 2, .n_head_kv = 2};

std::vector<uint8_t> state_of(const Shape& shape, int n_tokens) {
    const Tokens tokens(shape, n_tokens, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, n_tokens);
    return save(cache, 0);
}

TEST(StateDevice, HasTheBytesOfTheHost) {
    for (const lk_cache_type type : test::kAllTypes) {
        const Shape shape{.type_k = type, .type_v = type, .n_layer = 2, .n_head_kv = 2, .undo = 32};
        const Tokens tokens(shape, 700, 5);
        for (const int n : {0, 1, 5, 130, 161, 415, 700}) {
            SCOPED_TRACE(format("%s, %d tokens", shape.text().c_str(), n));
            Cache cache(shape.config());
            for (int begin = 0; begin < n; begin += 29) {  // the ring's rows begin in its middle
                append(cache, 0, tokens, begin, std::min(n, begin + 29));
            }
            const std::vector<uint8_t> state = save(cache, 0);
            CountingMemory memory;
            Cache device(shape.config(), memory);
            load_state(Whole(device), 1, kModel, state);
            EXPECT_EQ(save(device, 1), state);
        }
    }
}

// The engine's loop waits for a save. Each copy from a device has a latency, and fresh memory costs a page fault per
// 4 KiB.
TEST(StateDevice, IsReadInFewCopiesThroughMemoryThatIsKept) {
    const std::vector<uint8_t> state = state_of(kShape, 415);
    CountingMemory memory;
    Cache device(kShape.config(), memory);
    load_state(Whole(device), 0, kModel, state);
    std::vector<uint8_t> bytes(state.size());
    save_state(Whole(device), 0, kModel, bytes);
    const int n_allocations = memory.pinned.n_allocations;
    memory.n_copies = 0;
    memory.copied_bytes = 0;
    const test::AllocatedBytes allocated;
    save_state(Whole(device), 0, kModel, bytes);
    EXPECT_LT(allocated.count(), 10'000);
    EXPECT_EQ(memory.pinned.n_allocations, n_allocations);
    EXPECT_EQ(memory.n_copies, 2 * (1 + 2));  // per side: the ring's slot, and blocks of 128 tokens
    EXPECT_LT(memory.copied_bytes, 2 * state.size());
}

TEST(StateDevice, IsReadThroughPageableMemoryWithoutPinnedMemory) {
    const std::vector<uint8_t> state = state_of(kShape, 415);
    CountingMemory memory;
    memory.pinned.fails = true;
    Cache device(kShape.config(), memory);
    load_state(Whole(device), 0, kModel, state);
    EXPECT_EQ(save(device, 0), state);
}

}  // namespace
}  // namespace lk::kv
