#include "random_program.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <random>

#include "backend/cpu/kernels.h"
#include "base/error.h"
#include "support/tiny_model.h"

namespace lk::test {

namespace {

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

}  // namespace

std::string Operation::text() const {
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

lk_model* program_model(int index) {
    static std::unique_ptr<LoadedModel> loaded[std::size(kModels)];
    if (loaded[index] == nullptr) {
        const ModelOf& m = kModels[index];
        loaded[index] = std::make_unique<LoadedModel>(TinyModel(m.n_head_kv, m.window).bytes(m.weights));
    }
    return loaded[index]->get();
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

}  // namespace lk::test
