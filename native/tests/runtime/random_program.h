// Random programs of sequence operations on two contexts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llama_kivi.h"

namespace lk::test {

inline constexpr int kContexts = 2;
inline constexpr int kSeqs = 3;   // sequences of a context; sequence i belongs to context i / kSeqs
inline constexpr int kSlots = 2;  // saved states

enum class Kind { append, beside, rewind, mark, to_mark, fork, save, restore, shift, clear, threads };

// Operands beyond a sequence's length are clamped, so that a program stays valid without some of its operations.
struct Operation {
    Kind kind;
    int seq = 0;
    int other = 0;      // beside: the second sequence of the call; fork: the destination; save, restore: the slot
    int n = 0;          // append: tokens; rewind, shift: tokens removed; to_mark: which mark; threads: count
    int m = 0;          // beside: tokens of the second sequence; shift: first token removed
    uint32_t salt = 0;  // determines the tokens

    std::string text() const;
};

struct Program {
    uint32_t seed = 0;
    lk_cache_params cache{};
    int model = 0;  // of program_model
    std::string table;
    int n_ctx = 0;
    int n_ubatch[kContexts] = {};
    std::vector<Operation> operations;
};

// A program of random operations, on a random model, with a random cache of this type.
Program make_program(lk_cache_type type, uint32_t seed);

std::string text_of(const Program& p);

// The model of a program, loaded once.
lk_model* program_model(int index);

}  // namespace lk::test
