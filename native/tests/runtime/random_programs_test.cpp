// Random programs of sequence operations. A program appends tokens in calls of random sizes, forks, marks, rewinds,
// saves, restores, shifts and clears several sequences of two contexts. The oracle runs the operations of one sequence
// alone, in a new context, one token a call: its logits and saved states must have the same bits. What an exact rewind
// drops is left out of the oracle's operations, an inexact rewind is one of them. LK_PROGRAMS: programs per cache type.
// LK_PROGRAM_SEED: runs the program of this seed alone.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/kernels.h"
#include "program_runner.h"
#include "support/tiny_model.h"

namespace lk::test {

namespace {

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
