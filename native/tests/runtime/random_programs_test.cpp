// Random programs of sequence operations. A program appends tokens in calls of random sizes, forks, marks, rewinds,
// saves, restores, shifts and clears several sequences of two contexts. The oracle runs the operations of one sequence
// alone, in a new context, one token a call: its logits and saved states must have the same bits. What an exact rewind
// drops is left out of the oracle's operations, an inexact rewind is one of them. LK_PROGRAMS: programs per cache type.
// LK_PROGRAM_SEED: runs the program of this seed alone.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "support/failed_call.h"
#include "support/tiny_model.h"

namespace lk::test {

namespace {

// ---- programs

constexpr int kContexts = 2;
constexpr int kSeqs = 3;   // sequences of a context; sequence i belongs to context i / kSeqs
constexpr int kSlots = 2;  // saved states

enum class Kind { append, beside, rewind, mark, to_mark, fork, save, restore, shift, clear, threads };

// Operands beyond a sequence's length are clamped, so that a program stays valid without some of its operations.
struct Operation {
    Kind kind;
    int seq = 0;
    int other = 0;      // beside: the second sequence of the call; fork: the destination; save, restore: the slot
    int n = 0;          // append: tokens; rewind, shift: tokens removed; to_mark: which mark; threads: count
    int m = 0;          // beside: tokens of the second sequence; shift: first token removed
    uint32_t salt = 0;  // determines the tokens

    std::string text() const {
        switch (kind) {
        case Kind::append:
            return format("append %d tokens to %d (salt %u)", n, seq, salt);
        case Kind::beside:
            return format("append %d tokens to %d and %d to %d in one call (salt %u)", n, seq, m, other, salt);
        case Kind::rewind:
            return format("rewind %d by %d tokens", seq, n);
        case Kind::mark:
            return format("mark %d", seq);
        case Kind::to_mark:
            return format("rewind %d to a mark (%d)", seq, n);
        case Kind::fork:
            return format("fork %d to %d", seq, other);
        case Kind::save:
            return format("save %d in slot %d", seq, other);
        case Kind::restore:
            return format("restore slot %d to %d", other, seq);
        case Kind::shift:
            return format("remove %d tokens of %d from position %d on", n, seq, m);
        case Kind::clear:
            return format("clear %d", seq);
        case Kind::threads:
            return format("set %d threads in context %d", n, seq / kSeqs);
        }
        return "";
    }
};

struct Program {
    uint32_t seed = 0;
    lk_cache_params cache{};
    int model = 0;  // index in kModels
    std::string table;
    int n_ctx = 0;
    int n_ubatch[kContexts] = {};
    std::vector<Operation> operations;
};

struct ModelOf {
    const char* name;
    int n_head_kv;
    int window;
    WeightType weights;
};
constexpr ModelOf kModels[] = {{"GQA, F32", 1, 0, WeightType::F32},
                               {"GQA, Q8_0", 1, 0, WeightType::Q8_0},
                               {"MHA, F32", 2, 0, WeightType::F32},
                               {"GQA, Q8_0, window of 90 tokens", 1, 90, WeightType::Q8_0}};

lk_model* model(int i) {
    static std::unique_ptr<LoadedModel> loaded[std::size(kModels)];
    if (loaded[i] == nullptr) {
        const ModelOf& m = kModels[i];
        loaded[i] = std::make_unique<LoadedModel>(TinyModel(m.n_head_kv, m.window).bytes(m.weights));
    }
    return loaded[i]->get();
}

std::string text_of(const Program& p) {
    std::string text = format(
        "seed %u: %s, group %u, residual %d, %d sinks, ring rows %d, undo %d; model %s; table %s; n_ctx "
        "%d; "
        "sequences 0 to 2 in passes of %d, 3 to 5 in passes of %d\n",
        p.seed, lk_cache_type_name(p.cache.type_k), p.cache.group, p.cache.residual, p.cache.sinks,
        static_cast<int>(p.cache.residual_type), p.cache.undo, kModels[p.model].name, p.table.c_str(), p.n_ctx,
        p.n_ubatch[0], p.n_ubatch[1]);
    for (const Operation& o : p.operations) {
        text += "  " + o.text() + "\n";
    }
    return text;
}

class Dice {
public:
    explicit Dice(uint32_t seed) : random_(seed) {}

    int pick(int min, int max) { return min + static_cast<int>(random_() % (max - min + 1)); }
    template <class T, size_t n>
    T one_of(const T (&choices)[n]) {
        return choices[pick(0, n - 1)];
    }
    uint32_t number() { return random_(); }

private:
    std::mt19937 random_;
};

Operation make_operation(Dice& dice) {
    constexpr Kind kKinds[] = {Kind::append, Kind::append, Kind::append,  Kind::append,  Kind::beside,  Kind::beside,
                               Kind::beside, Kind::rewind, Kind::rewind,  Kind::rewind,  Kind::rewind,  Kind::mark,
                               Kind::mark,   Kind::mark,   Kind::to_mark, Kind::to_mark, Kind::fork,    Kind::fork,
                               Kind::save,   Kind::save,   Kind::restore, Kind::shift,   Kind::threads, Kind::clear};
    Operation o;
    o.kind = dice.one_of(kKinds);
    // Sequences 0 and 1 get most operations, so that they grow long.
    const int seqs[] = {0, 0, 0, 1, 1, 2, 3, 3, 4};
    o.seq = dice.one_of(seqs);
    o.salt = dice.number() % 1000;
    const int sizes[] = {3, 40, 120, 200};
    switch (o.kind) {
    case Kind::beside:
        o.other = o.seq / kSeqs * kSeqs + dice.pick(0, kSeqs - 1);
        o.m = dice.pick(1, dice.one_of(sizes));
        [[fallthrough]];
    case Kind::append:
        o.n = dice.pick(1, dice.one_of(sizes));
        break;
    case Kind::rewind: {
        const int backs[] = {3, 16, 16, 40, 200};
        o.n = dice.pick(1, dice.one_of(backs));
        break;
    }
    case Kind::to_mark:
        o.n = dice.pick(0, 9);
        break;
    case Kind::mark:
        break;
    case Kind::fork:
        o.other = o.seq / kSeqs * kSeqs + dice.pick(0, kSeqs - 1);
        break;
    case Kind::save:
    case Kind::restore:
        o.other = dice.pick(0, kSlots - 1);
        break;
    case Kind::shift:
        o.n = dice.pick(1, dice.one_of(sizes));
        o.m = dice.pick(0, dice.one_of(sizes));
        break;
    case Kind::threads:
        o.n = dice.pick(1, 4);
        break;
    case Kind::clear:
        break;
    }
    return o;
}

Program make_program(lk_cache_type type, uint32_t seed) {
    Dice dice(seed * 64 + static_cast<uint32_t>(type) * 4);
    Program p;
    p.seed = seed;
    const uint32_t groups[] = {0, 16, 32, 64};
    const int32_t residuals[] = {32, 33, 50, 64, 100, 128};
    const lk_row_type rows[] = {LK_ROWS_OWN, LK_ROWS_F16, LK_ROWS_Q8_0};
    p.cache = {type, type, dice.one_of(groups), dice.one_of(residuals), dice.pick(-1, 8), 0, dice.one_of(rows), 0, 0};
    const int32_t undos[] = {0, 0, -1, 5, 64};
    p.cache.undo = dice.one_of(undos);
    if (!kv::is_kivi(type) && dice.pick(0, 1) == 0) {  // as stock llama.cpp has them
        p.cache.residual = 0;
        p.cache.sinks = -1;
    }
    p.model = dice.pick(0, std::size(kModels) - 1);
    const std::vector<cpu::NamedKernels> tables = cpu::available_kernels();
    p.table = tables[dice.pick(0, static_cast<int>(tables.size()) - 1)].id;
    p.n_ctx = dice.pick(250, 1200);
    for (int& n : p.n_ubatch) {
        const int sizes[] = {1, 7, 61, 512};
        n = dice.one_of(sizes);
    }
    const int n = dice.pick(6, 24);
    for (int i = 0; i < n; ++i) {
        p.operations.push_back(make_operation(dice));
    }
    return p;
}

// ---- the history of a sequence

// What happened to a sequence, with the results that the oracle must repeat.
struct Event {
    enum { token, rewind, shift, state } kind;
    int a = 0;  // token: its id; rewind: tokens kept; shift: first token removed
    int b = 0;  // shift: end of the removed tokens
    std::shared_ptr<const Logits> logits = nullptr;
    std::shared_ptr<const std::vector<uint8_t>> saved = nullptr;
};

struct Mark {
    int length;
    size_t n_events;  // before it
};

struct History {
    std::vector<Event> events;
    std::vector<Mark> marks;
    int length = 0;
    int back = 0;  // tokens of exact rewinds that were not appended again: the undo window lacks as many rows
    int unequal =
        0;  // tokens until the ring holds as many undo rows as that of the sequence alone; states differ till then
};

void count_token(History& h) {
    ++h.length;
    h.back = std::max(0, h.back - 1);
    h.unequal = std::max(0, h.unequal - 1);
}

// Whether a row's page depends on the row alone, from the call that appends it: a stock type without a window.
bool stores_at_once(const Program& p) {
    return kv::make_residual(p.cache, p.cache.type_k) == 0;
}

int undo_rows(const Program& p) {
    return p.cache.undo == 0 ? kv::kDefaultUndo : std::max(0, p.cache.undo);
}

// Whether the events that brought a sequence from n_keep tokens to its length are appends.
bool only_appends_since(const History& h, int n_keep) {
    int length = h.length;
    for (size_t i = h.events.size(); length > n_keep; --i) {
        if (i == 0 || h.events[i - 1].kind == Event::rewind || h.events[i - 1].kind == Event::shift) {
            return false;
        }
        length -= h.events[i - 1].kind == Event::token ? 1 : 0;
    }
    return true;
}

// Whether a rewind must be exact: in a stock type without a window, to nothing, to a mark, and by the undo window.
bool must_be_exact(const Program& p, const History& h, int n_keep) {
    const bool marked =
        std::any_of(h.marks.begin(), h.marks.end(), [&](const Mark& mark) { return mark.length == n_keep; });
    return n_keep == 0 || marked || stores_at_once(p) ||
           (h.back + h.length - n_keep <= undo_rows(p) && only_appends_since(h, n_keep));
}

// ---- running

class Runner {
public:
    explicit Runner(const Program& program) : program_(program), table_(program.table.c_str()) {
        for (int i = 0; i < kContexts; ++i) {
            contexts_.push_back(
                std::make_unique<TestContext>(params(program.n_ubatch[i], kSeqs), model(program.model)));
        }
    }

    // Runs the program, then the oracle. Says what differs; nullopt: nothing.
    std::optional<std::string> run() {
        for (const Operation& o : program_.operations) {
            operate(o);
            for (int seq = 0; seq < kContexts * kSeqs && !failure_; ++seq) {
                check(length(seq) == histories_[seq].length,
                      format("sequence %d has %d tokens, not %d, after: ", seq, length(seq), histories_[seq].length) +
                          o.text());
            }
            if (failure_) {
                return failure_;
            }
        }
        for (int seq = 0; seq < kContexts * kSeqs; ++seq) {
            record_state(seq);
            retire(histories_[seq]);
        }
        for (const History& h : retired_) {
            repeat(h);
        }
        return failure_;
    }

private:
    lk_context_params params(int n_ubatch, int n_seq) const {
        lk_context_params params;
        lk_context_params_default(&params);
        params.n_ctx = static_cast<uint32_t>(program_.n_ctx);
        params.n_seq_max = static_cast<uint32_t>(n_seq);
        params.n_ubatch = static_cast<uint32_t>(n_ubatch);
        params.n_threads = 1;
        params.cache = program_.cache;
        return params;
    }

    lk_context* context(int seq) const { return contexts_[seq / kSeqs]->get(); }
    int length(int seq) const { return static_cast<int>(contexts_[seq / kSeqs]->length(seq % kSeqs)); }

    void check(bool condition, const std::string& message) {
        if (!condition && !failure_) {
            failure_ = message;
        }
    }
    void check_ok(lk_status status, const Operation& o) {
        check(status == LK_OK, o.text() + ": " + (status == LK_OK ? "" : lk_last_error()));
    }

    // Keeps a history that ends here for the oracle.
    void retire(const History& h) {
        if (!h.events.empty()) {
            retired_.push_back(h);
        }
    }

    void record_state(int seq) {
        History& h = histories_[seq];
        if (h.length > 0 && h.unequal == 0) {
            h.events.push_back(
                {Event::state, 0, 0, nullptr,
                 std::make_shared<const std::vector<uint8_t>>(state_of(*contexts_[seq / kSeqs], seq % kSeqs))});
        }
    }

    void operate(const Operation& o) {
        History& h = histories_[o.seq];
        switch (o.kind) {
        case Kind::append:
        case Kind::beside:
            append(o);
            return;
        case Kind::rewind:
            rewind(o, std::max(0, h.length - o.n));
            return;
        case Kind::clear:
            rewind(o, 0);
            return;
        case Kind::mark:
            check_ok(lk_seq_mark(context(o.seq), o.seq % kSeqs), o);
            if (h.length > 0 && (h.marks.empty() || h.marks.back().length < h.length)) {
                h.marks.push_back({h.length, h.events.size()});
            }
            return;
        case Kind::to_mark:
            if (!h.marks.empty()) {
                rewind(o, h.marks[o.n % h.marks.size()].length);
            }
            return;
        case Kind::fork:
            if (o.seq != o.other) {
                check_ok(lk_seq_copy(context(o.seq), o.seq % kSeqs, o.other % kSeqs), o);
                retire(histories_[o.other]);
                histories_[o.other] = h;
            }
            return;
        case Kind::save:
            record_state(o.seq);
            slots_[o.other] = {state_of(*contexts_[o.seq / kSeqs], o.seq % kSeqs), h};
            return;
        case Kind::restore:
            restore(o);
            return;
        case Kind::shift:
            shift(o, std::min(o.m, h.length), std::min(o.m + o.n, h.length));
            return;
        case Kind::threads:
            check_ok(lk_context_set_threads(context(o.seq), static_cast<uint32_t>(o.n)), o);
            return;
        }
    }

    void append(const Operation& o) {
        // Tokens of the two sequences alternate while both have some.
        std::vector<int32_t> tokens;
        std::vector<int32_t> seqs;
        std::mt19937 random(o.salt);
        int left[] = {o.n, o.kind == Kind::beside ? o.m : 0};
        const int owners[] = {o.seq, o.other};
        for (int i = 0; left[0] + left[1] > 0; ++i) {
            if (left[i % 2] > 0) {
                --left[i % 2];
                tokens.push_back(static_cast<int32_t>(random() % TinyModel::kVocab));
                seqs.push_back(owners[i % 2]);
            }
        }
        std::vector<int32_t> numbers(seqs);
        for (int32_t& seq : numbers) {
            seq %= kSeqs;
        }
        const std::vector<uint8_t> outputs(tokens.size(), 1);
        const lk_batch batch{tokens.data(), nullptr,        numbers.data(),
                             nullptr,       outputs.data(), static_cast<uint32_t>(tokens.size())};
        const lk_status status = lk_decode(context(o.seq), &batch);
        if (status == LK_CACHE_FULL) {
            return;  // nothing has changed
        }
        check_ok(status, o);
        for (size_t i = 0; i < tokens.size() && !failure_; ++i) {
            float* row = nullptr;
            check_ok(lk_logits(context(o.seq), static_cast<uint32_t>(i), &row), o);
            if (row != nullptr) {
                History& h = histories_[seqs[i]];
                h.events.push_back(
                    {Event::token, tokens[i], 0, std::make_shared<const Logits>(row, row + TinyModel::kVocab)});
                count_token(h);
            }
        }
    }

    void rewind(const Operation& o, int n_keep) {
        History& h = histories_[o.seq];
        if (n_keep == h.length) {
            return;
        }
        cut(o, n_keep, [&] { return lk_seq_truncate(context(o.seq), o.seq % kSeqs, static_cast<uint32_t>(n_keep)); });
    }

    // The engine says whether a cut is exact; the oracle repeats what it says.
    template <class Truncate>
    void cut(const Operation& o, int n_keep, Truncate truncate) {
        History& h = histories_[o.seq];
        uint32_t length = 0;
        uint32_t from = 0;
        check_ok(lk_seq_exact_length(context(o.seq), o.seq % kSeqs, static_cast<uint32_t>(n_keep), &length), o);
        check_ok(lk_seq_exact_from(context(o.seq), o.seq % kSeqs, &from), o);
        bool exact = static_cast<int>(length) == n_keep;
        check(exact || !must_be_exact(program_, h, n_keep), o.text() + " is not exact");
        check_ok(truncate(), o);
        // Without a window, a cut behind a shift is exact too; the shift stays an event.
        exact = exact && (!stores_at_once(program_) || n_keep == 0 || only_appends_since(h, n_keep));
        if (!exact) {
            h.events.push_back({Event::rewind, n_keep, 0});
            h.back = undo_rows(program_);
        } else {
            retire(h);
            if (n_keep < static_cast<int>(from) && n_keep > 0) {  // by a mark
                const auto mark =
                    std::find_if(h.marks.begin(), h.marks.end(), [&](const Mark& m) { return m.length >= n_keep; });
                check(mark != h.marks.end(), o.text() + " is said to be exact without a mark");
                if (mark == h.marks.end()) {
                    return;
                }
                h.length = mark->length;
                h.events.erase(h.events.begin() + static_cast<ptrdiff_t>(mark->n_events), h.events.end());
                h.back = undo_rows(program_);
            }
            check(n_keep == 0 || only_appends_since(h, n_keep), o.text() + " is said to be exact");
            take_back(h, n_keep);
        }
        h.length = n_keep;
        std::erase_if(h.marks, [&](const Mark& mark) { return mark.length > n_keep; });
        if (n_keep == 0) {
            h = {};
        }
    }

    void take_back(History& h, int n_keep) {
        for (int length = h.length; length > n_keep && !h.events.empty();) {
            if (h.events.back().kind == Event::token) {
                --length;
                ++h.back;
            }
            h.events.pop_back();
        }
        h.back = std::min(h.back, undo_rows(program_));
        if (!stores_at_once(program_) && undo_rows(program_) > 0) {
            h.unequal = static_cast<int>(program_.cache.residual) +
                        kv::make_recipe(program_.cache, program_.cache.type_k).group + undo_rows(program_);
        }
    }

    void restore(const Operation& o) {
        const Slot& slot = slots_[o.other];
        if (slot.state.empty()) {
            return;
        }
        const lk_status status = lk_seq_state_set(context(o.seq), o.seq % kSeqs, slot.state.data(), slot.state.size());
        if (status == LK_CACHE_FULL) {
            return;
        }
        check_ok(status, o);
        retire(histories_[o.seq]);
        histories_[o.seq] = slot.history;
        histories_[o.seq].marks.clear();
    }

    void shift(const Operation& o, int begin, int end) {
        History& h = histories_[o.seq];
        if (begin == end) {
            return;
        }
        const auto remove = [&] {
            return lk_seq_remove(context(o.seq), o.seq % kSeqs, static_cast<uint32_t>(begin),
                                 static_cast<uint32_t>(end));
        };
        if (end == h.length) {
            cut(o, begin, remove);
            return;
        }
        check_ok(remove(), o);
        h.events.push_back({Event::shift, begin, end});
        h.length -= end - begin;
        h.back = undo_rows(program_);
        std::erase_if(h.marks, [&](const Mark& mark) { return mark.length > begin; });
    }

    // The oracle: the events alone, one token a call.
    void repeat(const History& h) {
        TestContext alone(params(1, 1), model(program_.model));
        int n = 0;
        for (size_t i = 0; i < h.events.size() && !failure_; ++i) {
            const Event& e = h.events[i];
            const auto at = [&] { return format(" at event %zu of %zu, length %d", i, h.events.size(), n); };
            if (e.kind == Event::token) {
                check(alone.decode({e.a}) == LK_OK, "the oracle cannot append" + at() + ": " + lk_last_error());
                float* row = nullptr;
                check(lk_logits(alone.get(), 0, &row) == LK_OK, "the oracle has no logits" + at());
                check(row != nullptr && std::memcmp(row, e.logits->data(), e.logits->size() * sizeof(float)) == 0,
                      "logits differ from those of the sequence alone" + at());
            } else if (e.kind == Event::rewind) {
                check(lk_seq_truncate(alone.get(), 0, static_cast<uint32_t>(e.a)) == LK_OK, "rewind" + at());
            } else if (e.kind == Event::shift) {
                check(lk_seq_remove(alone.get(), 0, static_cast<uint32_t>(e.a), static_cast<uint32_t>(e.b)) == LK_OK,
                      "shift" + at());
            } else {
                check(state_of(alone, 0) == *e.saved, "the state differs from that of the sequence alone" + at());
            }
            n = static_cast<int>(alone.length());
        }
    }

    struct Slot {
        std::vector<uint8_t> state;
        History history;
    };

    const Program& program_;
    TableInUse table_;
    std::vector<std::unique_ptr<TestContext>> contexts_;
    History histories_[kContexts * kSeqs];
    Slot slots_[kSlots];
    std::vector<History> retired_;
    std::optional<std::string> failure_;
};

std::optional<std::string> failure_of(const Program& p) {
    return Runner(p).run();
}

// Drops operations and halves their token counts while the program fails.
Program minimized(Program p) {
    for (bool smaller = true; smaller;) {
        smaller = false;
        for (size_t i = p.operations.size(); i-- > 0;) {
            Program without = p;
            without.operations.erase(without.operations.begin() + static_cast<ptrdiff_t>(i));
            if (failure_of(without)) {
                p = std::move(without);
                smaller = true;
            }
        }
        for (Operation& o : p.operations) {
            for (int Operation::*const count : {&Operation::n, &Operation::m}) {
                for (const int step : {o.*count / 2, 1}) {
                    const int before = o.*count;
                    if (step == 0 || before - step < 1) {
                        continue;
                    }
                    o.*count -= step;
                    if (failure_of(p)) {
                        smaller = true;
                    } else {
                        o.*count = before;
                    }
                }
            }
        }
    }
    return p;
}

int program_count() {
    const char* const text = std::getenv("LK_PROGRAMS");
    return text != nullptr ? std::atoi(text) : 10;
}

class RandomPrograms : public testing::TestWithParam<lk_cache_type> {};

TEST_P(RandomPrograms, EqualTheSequenceAlone) {
    const char* const seed = std::getenv("LK_PROGRAM_SEED");
    const uint32_t first = seed != nullptr ? static_cast<uint32_t>(std::atoi(seed)) : 1;
    const uint32_t end = seed != nullptr ? first + 1 : first + static_cast<uint32_t>(program_count());
    for (uint32_t i = first; i < end; ++i) {
        const Program program = make_program(GetParam(), i);
        if (failure_of(program)) {
            const Program small = minimized(program);
            FAIL() << failure_of(small).value_or("the minimized program passed when it was repeated") << "\n"
                   << text_of(small);
        }
    }
}

// A program of this type's default cache on the first model.
Program program_of(lk_cache_type type, std::vector<Operation> operations) {
    Program p;
    p.cache = {type, type, 16, 33, -1, 0, LK_ROWS_OWN, 0, 0};
    p.table = cpu::available_kernels().back().id;
    p.n_ctx = 900;
    p.n_ubatch[0] = p.n_ubatch[1] = 512;
    p.operations = std::move(operations);
    return p;
}

// Programs that failed once.
TEST_P(RandomPrograms, FoundFaults) {
    // A fork had two blocks for the two runs of an unfinished page.
    const Program runs_of_a_page = program_of(
        GetParam(),
        {{.kind = Kind::append, .n = 90}, {.kind = Kind::shift, .n = 16, .m = 1}, {.kind = Kind::fork, .other = 1}});
    // A saved state held codes of tokens that a truncation had dropped from a page that a shift closed later.
    const Program dropped_tokens = program_of(GetParam(), {{.kind = Kind::append, .n = 90},
                                                           {.kind = Kind::rewind, .n = 50},
                                                           {.kind = Kind::shift, .n = 1, .m = 1},
                                                           {.kind = Kind::append, .n = 60}});
    for (const Program& p : {runs_of_a_page, dropped_tokens}) {
        EXPECT_EQ(failure_of(p).value_or(""), "") << text_of(p);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, RandomPrograms,
                         testing::Values(LK_CACHE_F16, LK_CACHE_Q8_0, LK_CACHE_Q4_0, LK_CACHE_KIVI4, LK_CACHE_KIVI2,
                                         LK_CACHE_KIVI3, LK_CACHE_F32, LK_CACHE_BF16, LK_CACHE_Q5_1, LK_CACHE_Q5_0,
                                         LK_CACHE_Q4_1, LK_CACHE_IQ4_NL),
                         [](const auto& info) { return std::string(lk_cache_type_name(info.param)); });

}  // namespace

}  // namespace lk::test
