#include "program_runner.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "support/failed_call.h"
#include "support/tiny_model.h"

namespace lk::test {

namespace {

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

class Runner {
public:
    explicit Runner(const Program& program) : program_(program), table_(program.table.c_str()) {
        for (int i = 0; i < kContexts; ++i) {
            contexts_.push_back(
                std::make_unique<TestContext>(params(program.n_ubatch[i], kSeqs), program_model(program.model)));
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
        TestContext alone(params(1, 1), program_model(program_.model));
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

}  // namespace

std::optional<std::string> failure_of(const Program& p) {
    return Runner(p).run();
}

}  // namespace lk::test
