// A saved state with a valid header and checksum and an arbitrary payload is rejected, or its sequence can be
// continued. Input: a byte that selects the cache type, then the payload.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "fuzz.h"
#include "kv/state/state.h"
#include "kv/state/state_checksum.h"
#include "support/tiny_llama.h"

namespace {

lk::Context& context_of(size_t type) {
    static const std::shared_ptr<const lk::Model> model = lk::test::load_tiny_llama(32, 1);
    static std::unique_ptr<lk::Context> contexts[std::size(lk::fuzz::kTypes)];
    if (contexts[type] == nullptr) {
        contexts[type] = std::make_unique<lk::Context>(model, lk::fuzz::context_params(lk::fuzz::kTypes[type]));
    }
    return *contexts[type];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    lk::Context& context = context_of(data[0] % std::size(lk::fuzz::kTypes));
    context.truncate(0, 0);
    std::vector<uint8_t> state(sizeof(lk::kv::StateHeader) + size - 1 + sizeof(uint64_t));
    lk::kv::StateHeader header{};
    std::memcpy(&header, lk::test::save_state(context, 0).data(), sizeof(header));
    header.payload_bytes = size - 1;
    std::memcpy(state.data(), &header, sizeof(header));
    std::memcpy(state.data() + sizeof(header), data + 1, size - 1);
    const uint64_t sum = lk::kv::state_checksum(std::span(state).first(state.size() - sizeof(sum)));
    std::memcpy(state.data() + state.size() - sizeof(sum), &sum, sizeof(sum));
    try {
        context.load_state(0, state);
    } catch (const lk::Error& e) {
        if (e.status() != LK_BAD_STATE && e.status() != LK_CACHE_FULL) {
            std::fprintf(stderr, "refused with %s: %s\n", lk_status_name(e.status()), e.what());
            std::abort();
        }
        return 0;
    }
    // An accepted state can be saved, truncated, shifted, copied and continued.
    const std::vector<uint8_t> saved = lk::test::save_state(context, 0);
    if (saved != state) {
        std::fprintf(stderr, "a state that was taken comes out as another\n");
        std::abort();
    }
    const int length = context.cache().length(0);
    for (int round = 0; round < 2; ++round) {
        const int room = 512 - context.cache().length(0);
        if (room == 0) {
            break;
        }
        for (const float x : lk::test::read_tokens(context, 0, room < 100 ? room : 100)) {
            if (!std::isfinite(x)) {
                std::abort();
            }
        }
        if (round == 0) {
            context.remove(0, static_cast<uint32_t>(length / 3), static_cast<uint32_t>(length / 2));
            context.copy(0, 1);
            context.truncate(1, static_cast<uint32_t>(length / 4));
            lk::test::read_tokens(context, 1, 40);
            context.truncate(1, 0);
        }
    }
    return 0;
}
