// Saved states with a valid checksum and invalid content: each is rejected without changes, or can be continued.
#include <cstdlib>
#include <random>

#include "support/kv_helpers.h"
#include "support/state_forge.h"
#include "support/tiny_llama.h"

namespace lk {
namespace {

using test::ForgedState;
using test::read_tokens;
using test::save_state;

constexpr uint16_t kNaN = 0x7e00;
constexpr uint16_t kInfinity = 0xfc00;

// The situation in which a state was saved.
enum class Moment { few, ring_full, flushed, cut };
constexpr Moment kMoments[] = {Moment::few, Moment::ring_full, Moment::flushed, Moment::cut};

lk_context_params params_of(lk_cache_type type, uint32_t group = 32, int32_t residual = 64) {
    lk_context_params params;
    lk_context_params_default(&params);
    params.n_ctx = 1024;
    params.n_seq_max = 2;
    params.n_ubatch = 64;
    params.n_threads = 1;
    params.cache = {type, type, group, kv::is_kivi(type) ? residual : 0, -1, 0, LK_ROWS_OWN, 0, 0};
    return params;
}

std::vector<uint8_t> state_at(Context& context, Moment moment) {
    context.truncate(0, 0);
    switch (moment) {
    case Moment::few:
        read_tokens(context, 0, 5);
        break;
    case Moment::ring_full:
        read_tokens(context, 0, 95);
        break;
    case Moment::flushed:
        read_tokens(context, 0, 230);
        break;
    case Moment::cut:
        read_tokens(context, 0, 290);
        context.truncate(0, 203);
        context.remove(0, 2, 77);
        read_tokens(context, 0, 60);
        break;
    }
    return save_state(context, 0);
}

class ForgedStates : public testing::Test {
protected:
    static std::shared_ptr<const Model> model() {
        static const std::shared_ptr<const Model> loaded = test::load_tiny_llama(32);
        return loaded;
    }
    static ForgedState good(Context& context, Moment moment) {
        return {state_at(context, moment), context.cache().config()};
    }
};

// Loads a state over an existing sequence. Returns whether it was accepted.
bool load(Context& context, const std::vector<uint8_t>& state, std::string* message = nullptr) {
    context.truncate(1, 0);
    read_tokens(context, 1, 9);
    const std::vector<uint8_t> before = save_state(context, 1);
    try {
        context.load_state(1, state);
    } catch (const Error& e) {
        EXPECT_EQ(e.status(), LK_BAD_STATE) << e.what();
        EXPECT_EQ(save_state(context, 1), before) << e.what();
        if (message != nullptr) {
            *message = e.what();
        }
        return false;
    }
    return true;
}

void expect_refused(Context& context, const std::vector<uint8_t>& state, const std::string& part) {
    std::string message;
    EXPECT_FALSE(load(context, state, &message)) << "accepted, expected an error with: " << part;
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
}

void expect_continues(Context& context) {
    for (int i = 0; i < 2; ++i) {
        try {
            for (const float x : read_tokens(context, 1, 100)) {
                ASSERT_TRUE(std::isfinite(x));
            }
        } catch (const Error& e) {
            FAIL() << e.what();
        }
    }
}

// Two states from a bug report, and one without room for its centre.
TEST_F(ForgedStates, TablesWithoutPagesAndNumbersThatAreNone) {
    Context context(model(), params_of(LK_CACHE_KIVI2));
    const ForgedState few = good(context, Moment::few);
    expect_refused(context, few.with_number("values.chosen", 1), "the saved state");
    expect_refused(context, few.with_number("keys.chosen", 1), "the saved state");
    expect_refused(context, few.with_number("keys.chosen", 2), "flag of chosen tables");
    for (const uint16_t bad : {kNaN, kInfinity}) {
        expect_refused(context, few.with_half("values.head 1.ring", 0, bad), "ring of values");
        const ForgedState cut = good(context, Moment::cut);
        expect_refused(context, cut.with_half("keys.head 0.sinks", 1, bad), "sinks of keys");
        expect_refused(context, cut.with_half("values.head 1.table", 31, bad), "centre");
    }
}

TEST_F(ForgedStates, EveryFieldIsNamed) {
    Context context(model(), params_of(LK_CACHE_KIVI2));
    const ForgedState state = good(context, Moment::cut);
    ASSERT_GE(state.number("keys.n_runs"), 3);
    ASSERT_EQ(state.number("keys.n_sinks"), 2);
    const auto refused = [&](const std::string& field, int32_t x, const std::string& part) {
        expect_refused(context, state.with_number(field, x), part);
    };
    for (const std::string side : {"keys.", "values."}) {
        const int n_paged = state.number(side + "n_paged");
        refused(side + "n_paged", -1, "the count of tokens in pages is -1");
        refused(side + "n_paged", n_paged + 1, "tokens; its count is");
        refused(side + "n_paged", n_paged - 1, "more tokens than its count of");
        refused(side + "n_sinks", 5, "the count of sinks is 5");
        refused(side + "n_ring", 96, "the count of tokens in the ring is 96");
        refused(side + "n_ring", state.number(side + "n_ring") + 1, "");
        refused(side + "chosen", 0, "the flag of chosen tables is 0");
        refused(side + "n_runs", n_paged + 1, "the count of runs");
        refused(side + "n_blocks", state.number(side + "n_runs") + 1, "the count of blocks");
        refused(side + "run 0.block", 1, "the block of a run is 1; it must be 0");
        refused(side + "run 1.first", 1, "the first token of a run is 1");
        refused(side + "run 1.first", 127, "the tokens of a run");
        refused(side + "run 2.frame", -1, "the frame of a run is -1");
        refused(side + "run 2.frame", 1 << 30, "the frame of a run");
        refused(side + "head 0.exponent", 33, "exponent of a head's scales is 33");
    }
    // Refined channels must be ascending and in range.
    const std::string table = "keys.head 1.table";
    expect_refused(context, state.with_half(table, 7, 32), "refined channels");
    uint16_t first = 0;
    std::memcpy(&first, state.with(0, "", 0).data() + state.field(table).offset, sizeof(first));
    expect_refused(context, state.with_half(table, 1, first), "refined channels");
    // Extra bytes after the last field, and missing bytes before it.
    expect_refused(context, state.spliced(state.end(), 0, {0, 0, 0, 0}), "4 bytes after its values");
    expect_refused(context, state.spliced(state.end() - 4, 4, {}), "ends 4 bytes early");
    // Different counts of keys and values: removes a row of every head from the values' ring.
    Context plain(model(), params_of(LK_CACHE_F16));
    const ForgedState f16 = good(plain, Moment::few);
    expect_refused(plain, f16.with_number("values.n_paged", 4), "runs of");
    expect_refused(plain, f16.with_half("keys.block 0.head 0.codes", 9, kNaN), "a page of keys");
    kv::StateHeader header = state.header();
    header.key.model.reserved = 1;
    expect_refused(context, state.with_header(header), "reserved");
    header = state.header();
    header.version = 2;
    expect_refused(context, state.with_header(header), "format version 2, and this engine reads version 7");
}

// Half scales of pages and of blocks.
TEST_F(ForgedStates, ScalesThatAreNoNumbers) {
    for (const lk_cache_type type : {LK_CACHE_KIVI2_PAPER, LK_CACHE_KIVI4_PAPER}) {
        Context context(model(), params_of(type));
        const ForgedState state = good(context, Moment::flushed);
        expect_refused(context, state.with_half("keys.block 0.head 0.scales", 4, kNaN), "a page of keys with a scale");
        expect_refused(context, state.with_half("values.block 0.head 1.scales", 7, kInfinity), "a page of values");
        expect_refused(context, state.with_half("values.block 0.head 1.scales", 6, 0x8400), "negative");
    }
    for (const lk_cache_type type : test::kBlockTypes) {
        Context context(model(), params_of(type));
        const ForgedState state = good(context, Moment::few);
        expect_refused(context, state.with_half("keys.block 0.head 0.codes", 0, kInfinity), "a page of keys");
    }
}

// Mutates single fields and random bytes for every type and moment. LK_STATE_MUTATIONS: number of mutations per type
// and moment, or "all".
TEST_F(ForgedStates, AreRefusedOrContinued) {
    const char* const wanted = std::getenv("LK_STATE_MUTATIONS");
    const bool all = wanted != nullptr && std::string(wanted) == "all";
    const int n_random = wanted != nullptr && !all ? std::atoi(wanted) : all ? 2000 : 24;
    std::mt19937 random(11);
    int n_taken = 0;
    int n_refused = 0;
    for (const lk_cache_type type : test::kAllTypes) {
        Context context(model(), params_of(type));
        for (const Moment moment : kMoments) {
            const ForgedState state = good(context, moment);
            const auto attempt = [&](const std::vector<uint8_t>& forged, const std::string& what) {
                SCOPED_TRACE(
                    format("%s at moment %d: %s", lk_cache_type_name(type), static_cast<int>(moment), what.c_str()));
                if (load(context, forged)) {
                    ++n_taken;
                    expect_continues(context);
                } else {
                    ++n_refused;
                }
                return !testing::Test::HasFailure();
            };
            ASSERT_TRUE(attempt(state.with(0, "", 0), "unchanged"));
            for (const ForgedState::Field& f : state.fields()) {
                if (f.kind != ForgedState::Kind::integer || (!all && random() % 4 != 0)) {
                    continue;
                }
                for (const int32_t x : {state.number(f.name) + 1, state.number(f.name) - 1, 0, 1, 127, 128, -1,
                                        std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
                    if (x != state.number(f.name) && (all || random() % 3 == 0)) {
                        ASSERT_TRUE(attempt(state.with_number(f.name, x), f.name + " = " + std::to_string(x)));
                    }
                }
            }
            for (int i = 0; i < n_random; ++i) {
                const ForgedState::Field& f = state.fields()[random() % state.fields().size()];
                const size_t at = f.offset + random() % f.size;
                const uint32_t noise = random();
                const size_t n = std::min<size_t>(f.offset + f.size - at, 1 + random() % 4);
                ASSERT_TRUE(attempt(state.with(at, &noise, n),
                                    format("%s at %zu: %zu bytes of %x", f.name.c_str(), at - f.offset, n, noise)));
            }
        }
    }
    EXPECT_GT(n_taken, 100);
    EXPECT_GT(n_refused, 100);
}

}  // namespace
}  // namespace lk
