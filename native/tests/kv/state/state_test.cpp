// Saving and loading sequences.
#include <cstring>

#include "kv/state/state.h"
#include "support/failing_allocations.h"
#include "support/kv_helpers.h"

namespace lk::kv {
namespace {

using test::append;
using test::image_of;
using test::Shape;
using test::Tokens;
using test::Whole;

const ModelKey kModel{.architecture = "llama", .rope_base = 10000, .weights = 42};

std::vector<uint8_t> save(Cache& cache, int seq) {
    std::vector<uint8_t> bytes(state_size(Whole(cache), seq));
    save_state(Whole(cache), seq, kModel, bytes);
    return bytes;
}

TEST(State, ComesBackBitForBit) {
    for (const lk_cache_type type : test::kAllTypes) {
        const Shape shape{.type_k = type, .type_v = type, .n_layer = 2, .n_head_kv = 2};
        const Tokens tokens(shape, 900, 5);
        for (const int n : {0, 1, 4, 5, 130, 161, 700}) {
            for (const bool moved : {false, true}) {
                SCOPED_TRACE(format("%s, %d tokens, moved %d", shape.text().c_str(), n, moved));
                Cache cache(shape.config());
                if (n > 0) {
                    append(cache, 0, tokens, 0, n);
                }
                if (moved) {
                    cache.remove(0, n / 3, n / 2, test::rotation(shape.head_size));
                }
                Cache other(shape.config());
                append(other, 1, tokens, 100, 250);  // replaced by the load
                load_state(Whole(other), 1, kModel, save(cache, 0));
                EXPECT_EQ(image_of(other, 1).difference(image_of(cache, 0)), "");
                append(cache, 0, tokens, 700, 900);
                append(other, 1, tokens, 700, 900);
                EXPECT_EQ(test::rows_of(other, 1, other.length(1)), test::rows_of(cache, 0, cache.length(0)));
            }
        }
    }
}

// A ring takes megabytes in a large model, and the engine's loop waits for the copy.
TEST(State, SavingCopiesARingOnce) {
    const Shape shape{.n_layer = 2, .n_head_kv = 2};
    const Tokens tokens(shape, 400, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 400);
    const auto ring = static_cast<int64_t>(cache.ring_slot_bytes(Side::keys));
    const test::AllocatedBytes sizing;
    const uint64_t size = state_size(Whole(cache), 0);
    EXPECT_LT(sizing.count(), ring);
    std::vector<uint8_t> bytes(size);
    const test::AllocatedBytes saving;
    save_state(Whole(cache), 0, kModel, bytes);
    EXPECT_LT(saving.count(), ring);
}

TEST(State, DamageIsRefusedAndChangesNothing) {
    const Shape shape{.n_head_kv = 2};
    const Tokens tokens(shape, 400, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 400);
    const std::vector<uint8_t> good = save(cache, 0);
    append(cache, 1, tokens, 0, 50);
    const test::Image before = image_of(cache, 1);
    const int64_t bytes = cache.live_page_bytes();
    for (size_t size = 0; size < good.size(); size += size < 200 ? 1 : 997) {
        test::expect_error(LK_BAD_STATE, {}, [&] { load_state(Whole(cache), 1, kModel, std::span(good).first(size)); });
    }
    for (size_t i = 0; i < good.size(); i += i < 400 ? 1 : 313) {
        std::vector<uint8_t> bad = good;
        bad[i] ^= 0x10;
        test::expect_error(LK_BAD_STATE, {}, [&] { load_state(Whole(cache), 1, kModel, bad); });
    }
    std::vector<uint8_t> longer = good;
    longer.push_back(0);
    test::expect_error(LK_BAD_STATE, {"cut or appended"}, [&] { load_state(Whole(cache), 1, kModel, longer); });
    EXPECT_EQ(image_of(cache, 1).difference(before), "");
    EXPECT_EQ(cache.live_page_bytes(), bytes);
}

TEST(State, AnotherCacheOrModelIsRefusedByName) {
    const Shape shape{.n_head_kv = 2};
    const Tokens tokens(shape, 300, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 300);
    const std::vector<uint8_t> state = save(cache, 0);
    const auto refused = [&](Shape other, const ModelKey& model, const std::vector<std::string>& parts) {
        Cache target(other.config());
        test::expect_error(LK_BAD_STATE, parts, [&] { load_state(Whole(target), 0, model, state); });
    };
    Shape other = shape;
    other.type_k = LK_CACHE_F16;
    refused(other, kModel, {"kivi2/kivi2", "f16/kivi2"});
    other = shape;
    other.lengths = {32, 64};
    refused(other, kModel, {"residual of keys 128", "64"});
    other = shape;
    other.n_head_kv = 1;
    refused(other, kModel, {"another model"});
    ModelKey model = kModel;
    ++model.weights;
    refused(shape, model, {"another model", "weights"});

    other = shape;
    other.n_ctx = 256;
    Cache small(other.config());
    EXPECT_THROW(load_state(Whole(small), 0, kModel, state), Error);
    EXPECT_EQ(small.length(0), 0);
}

// Forged counts with a matching checksum.
TEST(State, ForgedCountsAreRefused) {
    const Shape shape{};
    const Tokens tokens(shape, 400, 5);
    Cache cache(shape.config());
    append(cache, 0, tokens, 0, 400);
    const std::vector<uint8_t> good = save(cache, 0);
    const size_t payload = sizeof(StateKey) + 16;
    int refused = 0;
    for (size_t field = 0; field < 14; ++field) {
        for (const int32_t forged : {-1, 1 << 30, 0x7fffffff, 129}) {
            std::vector<uint8_t> bad = good;
            std::memcpy(bad.data() + payload + field * 4, &forged, 4);
            uint64_t hash = 0xcbf29ce484222325u;
            const size_t n = bad.size() - 8;
            for (size_t i = 0; i < n; i += 8) {
                uint64_t word = 0;
                std::memcpy(&word, bad.data() + i, std::min<size_t>(8, n - i));
                hash = (hash ^ word) * 0x100000001b3u;
                hash ^= hash >> 29;
            }
            std::memcpy(bad.data() + n, &hash, 8);
            Cache target(shape.config());
            try {
                load_state(Whole(target), 0, kModel, bad);
            } catch (const Error&) {
                ++refused;
                EXPECT_EQ(target.length(0), 0);
            }
        }
    }
    EXPECT_GT(refused, 40);  // some frames are valid
}

}  // namespace
}  // namespace lk::kv
