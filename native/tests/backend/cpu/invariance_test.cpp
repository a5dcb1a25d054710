// What a sequence computes is a function of its tokens and of the operations on it, bit for bit: not of how the tokens
// are cut into calls, of the number of threads, or of the other sequences of a call. The paper's types are left out:
// their prefill attends to the exact rows of its call.
#include <numeric>

#include "backend/cpu/attention.h"
#include "support/failed_call.h"
#include "support/kv_helpers.h"
#include "support/tiny_model.h"

namespace lk {
namespace {

using cpu::Kernels;
using kv::Segment;
using kv::Side;
using test::Shape;
using test::Tokens;

// Sizes of consecutive calls.
using Cut = std::vector<int>;

Cut equal_cut(int n, int size) {
    Cut cut(n / size, size);
    if (n % size > 0) {
        cut.push_back(n % size);
    }
    return cut;
}

Cut random_cut(int n, uint32_t seed) {
    std::mt19937 random(seed);
    Cut cut;
    while (n > 0) {
        cut.push_back(std::min<int>(n, 1 + static_cast<int>(random() % (random() % 3 == 0 ? 400 : 40))));
        n -= cut.back();
    }
    return cut;
}

std::string text_of(const Cut& cut) {
    return format("%zu calls, the first of %d tokens", cut.size(), cut[0]);
}

// ---- attention alone

constexpr int kTokens = 560;  // three chunks of attention

// A program on sequence 0: tokens, and operations at fixed numbers of tokens read.
struct Operation {
    int at;
    int truncate;       // tokens dropped from the end
    int begin, end;     // tokens removed
    bool fork = false;  // goes on in a copy
};

struct Program {
    Shape shape;
    int n_head = 3;
    int window = 0;
    std::vector<Operation> operations = {};
};

// Runs programs with one kernel table and thread count.
class Reader {
public:
    Reader(const Program& program, const Kernels& kernels, int n_threads)
        : program_(program),
          cache_(program.shape.config()),
          tokens_(program.shape, kTokens, 3, 1),
          others_(program.shape, kTokens, 4, 1),
          pool_(n_threads),
          attention_(kernels, n_threads),
          d_(program.shape.head_size) {
        std::mt19937 random(17);
        std::normal_distribution<float> normal;
        q_.resize(static_cast<size_t>(kTokens) * program.n_head * d_);
        for (float& x : q_) {
            x = 0.7f * normal(random);
        }
    }

    // Reads all tokens in calls of these sizes, which end early at operations. beside: rows of another sequence in
    // every call, before those of the sequence. Returns the outputs [token, n_head, D].
    std::vector<float> read(const Cut& cut, int beside = 0) {
        std::vector<float> out;
        int at = 0;
        size_t next = 0;
        for (int n : cut) {
            while (n > 0) {
                int step = n;
                if (next < program_.operations.size()) {
                    step = std::min(step, program_.operations[next].at - at);
                }
                call(at, step, beside, out);
                at += step;
                n -= step;
                while (next < program_.operations.size() && program_.operations[next].at == at) {
                    operate(program_.operations[next++]);
                }
            }
        }
        return out;
    }

    // The sequence after read, as attention sees it.
    std::vector<std::vector<float>> rows() const { return test::rows_of(cache_, seq_, cache_.length(seq_)); }

private:
    void call(int at, int n, int beside, std::vector<float>& out) {
        if (n == 0) {
            return;
        }
        const std::vector<Segment> segments =
            beside > 0 ? std::vector<Segment>{{2, 0, beside}, {seq_, beside, n}} : std::vector<Segment>{{seq_, 0, n}};
        cache_.reserve(segments);
        stage(Side::keys, tokens_.k[0], others_.k[0], at, n, beside);
        stage(Side::values, tokens_.v[0], others_.v[0], at, n, beside);
        rows_.stage_pages(cache_, segments, cache_.layers(), pool_);
        const size_t width = static_cast<size_t>(program_.n_head) * d_;
        std::vector<float> q(beside * width, 0.3f);
        q.insert(q.end(), q_.begin() + at * width, q_.begin() + (at + n) * width);
        std::vector<float> o(q.size());
        attention_.run({&cache_, segments, q.data(), o.data(), 0, program_.n_head,
                        1.0f / std::sqrt(static_cast<float>(d_)), test::rotation(d_), program_.window},
                       pool_);
        out.insert(out.end(), o.begin() + beside * width, o.end());
        cpu::commit(cache_, segments, pool_);
        if (cache_.length(2) > 500) {
            cache_.truncate(2, 0);
        }
    }

    void stage(Side side, const std::vector<float>& own, const std::vector<float>& other, int at, int n, int beside) {
        const size_t width = tokens_.width;
        std::vector<float> rows(other.begin(), other.begin() + beside * width);
        rows.insert(rows.end(), own.begin() + at * width, own.begin() + (at + n) * width);
        cpu::stage(cache_, side, 0, beside + n, rows.data(), test::half_row);
    }

    void operate(const Operation& o) {
        cache_.truncate(seq_, cache_.length(seq_) - o.truncate);
        if (o.end > o.begin) {
            cache_.remove(seq_, o.begin, o.end, test::rotation(d_));
        }
        if (o.fork) {
            cache_.copy(seq_, 1 - seq_);
            seq_ = 1 - seq_;
        }
    }

    const Program& program_;
    kv::Cache cache_;
    Tokens tokens_;
    Tokens others_;
    ThreadPool pool_;
    cpu::Append rows_;
    cpu::Attention attention_;
    int d_;
    int seq_ = 0;
    std::vector<float> q_;
};

struct Types {
    lk_cache_type k, v;
};
constexpr Types kTypes[] = {
    {LK_CACHE_F16, LK_CACHE_F16},     {LK_CACHE_Q8_0, LK_CACHE_Q8_0},   {LK_CACHE_Q4_0, LK_CACHE_Q4_0},
    {LK_CACHE_KIVI4, LK_CACHE_KIVI4}, {LK_CACHE_KIVI2, LK_CACHE_KIVI2}, {LK_CACHE_KIVI2, LK_CACHE_F16},
    {LK_CACHE_Q8_0, LK_CACHE_KIVI2},  {LK_CACHE_F32, LK_CACHE_F32},     {LK_CACHE_BF16, LK_CACHE_BF16},
    {LK_CACHE_Q5_1, LK_CACHE_Q5_1},   {LK_CACHE_Q5_0, LK_CACHE_Q5_0},   {LK_CACHE_Q4_1, LK_CACHE_Q4_1},
    {LK_CACHE_IQ4_NL, LK_CACHE_F32},  {LK_CACHE_KIVI3, LK_CACHE_KIVI3}};

// Index of the first element that differs in its bits; -1: none.
ptrdiff_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) {
        return 0;
    }
    for (size_t i = 0; i < a.size(); ++i) {
        if (bits_as<uint32_t>(a[i]) != bits_as<uint32_t>(b[i])) {
            return static_cast<ptrdiff_t>(i);
        }
    }
    return -1;
}

// Compares cuts with token-by-token reading. many: many cuts, with every kernel table.
void expect_invariant(const Program& program, bool many = false) {
    const auto width = static_cast<ptrdiff_t>(program.n_head) * program.shape.head_size;
    for (const Kernels* kernels : test::kernel_tables()) {
        if (!many && kernels != test::kernel_tables().front()) {
            continue;
        }
        Reader one_by_one(program, *kernels, 1);
        const std::vector<float> expected = one_by_one.read(equal_cut(kTokens, 1));
        const auto rows = one_by_one.rows();
        const auto check = [&](const Cut& cut, int n_threads, int beside) {
            Reader reader(program, *kernels, n_threads);
            const std::vector<float> out = reader.read(cut, beside);
            const ptrdiff_t at = first_difference(out, expected);
            EXPECT_EQ(at, -1) << kernels->name << ", " << program.shape.text() << ", " << text_of(cut) << ", threads "
                              << n_threads << ", beside " << beside << ": first at token " << at / width;
            EXPECT_EQ(reader.rows(), rows) << program.shape.text() << ", " << text_of(cut);
        };
        check(equal_cut(kTokens, 50), 2, 3);
        check(random_cut(kTokens, 1), 1, 0);
        if (many) {
            check(equal_cut(kTokens, 1), 2, 1);
            check(equal_cut(kTokens, 3), 1, 0);
            check(equal_cut(kTokens, 32), 2, 0);
            check(equal_cut(kTokens, 128), 1, 0);
            check(equal_cut(kTokens, 512), 8, 0);
            check(equal_cut(kTokens, kTokens), 3, 0);
            check(random_cut(kTokens, 2), 4, 5);
        }
    }
}

TEST(AttentionInvariance, CutsThreadsAndOtherSequences) {
    for (const Types& types : kTypes) {
        expect_invariant({.shape = {.type_k = types.k, .type_v = types.v, .n_seq = 3}}, true);
    }
}

// Rings in q8_0, score correction, groups of 64, and a residual that is not a multiple of the group.
TEST(AttentionInvariance, Q8RingsAndScoreCorrection) {
    for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI4}) {
        const Shape shape{.type_k = type, .type_v = type, .lengths = {0, 128}, .n_seq = 3};
        expect_invariant({.shape = shape}, type == LK_CACHE_KIVI2);
        expect_invariant(
            {.shape = {.type_k = type, .type_v = type, .lengths = {64, 100}, .head_size = 80, .n_seq = 3}});
        Shape short_ring = shape;
        short_ring.lengths = {32, 50};
        expect_invariant(
            {.shape = short_ring,
             .operations = {
                 {70, 69, 0, 0, false}, {250, 0, 1, 3, true}, {251, 0, 128, 130, false}, {500, 301, 0, 0, false}}});
        expect_invariant(
            {.shape = short_ring,
             .operations = {
                 {300, 0, 10, 47, false}, {420, 0, 0, 0, true}, {500, 130, 0, 0, false}, {540, 0, 2, 104, true}}});
    }
}

TEST(AttentionInvariance, GroupsHeadsAndSinks) {
    for (const Types& types : kTypes) {
        expect_invariant({.shape = {.type_k = types.k,
                                    .type_v = types.v,
                                    .lengths = {16, 32},
                                    .head_size = 96,
                                    .n_head_kv = 2,
                                    .n_seq = 3,
                                    .sinks = 7},
                          .n_head = 4});
        expect_invariant(
            {.shape = {.type_k = types.k, .type_v = types.v, .lengths = {128, 128}, .n_seq = 3}, .n_head = 1});
    }
}

TEST(AttentionInvariance, SlidingWindow) {
    for (const Types& types : kTypes) {
        for (const int window : {1, 40, 300}) {
            expect_invariant({.shape = {.type_k = types.k, .type_v = types.v, .n_seq = 3}, .window = window});
        }
    }
}

// Cut pages, pages with a frame, shared pages, and values whose page tokens are not aligned with positions.
TEST(AttentionInvariance, AfterCutsShiftsAndForks) {
    for (const Types& types : kTypes) {
        const Shape shape{.type_k = types.k, .type_v = types.v, .lengths = {32, 64}, .n_seq = 3};
        expect_invariant(
            {.shape = shape,
             .operations = {
                 {300, 0, 10, 47, false}, {420, 0, 0, 0, true}, {500, 130, 0, 0, false}, {540, 0, 4, 104, true}}});
        expect_invariant(
            {.shape = shape,
             .operations = {
                 {70, 69, 0, 0, false}, {250, 0, 1, 3, true}, {251, 0, 128, 130, false}, {500, 301, 0, 0, false}}});
    }
}

// A page that a fork shares is not continued after a cut, a page of one sequence is: the same tokens are then in other
// pages, and values in other units of a page.
TEST(AttentionInvariance, SharedPagesDoNotMatter) {
    for (const Types& types : kTypes) {
        for (const int truncate : {180, 187, 236}) {  // 64, 57 and 8 tokens are left of 244
            const Shape shape{.type_k = types.k, .type_v = types.v, .lengths = {32, 64}, .n_seq = 3};
            const Program alone{.shape = shape, .operations = {{244, truncate, 0, 0, false}}};
            const Program shared{.shape = shape, .operations = {{244, 0, 0, 0, true}, {244, truncate, 0, 0, false}}};
            for (const Kernels* kernels : test::kernel_tables()) {
                Reader a(alone, *kernels, 1);
                Reader b(shared, *kernels, 2);
                EXPECT_EQ(first_difference(a.read(equal_cut(kTokens, 30)), b.read(equal_cut(kTokens, 70))), -1)
                    << kernels->name << ", " << shape.text() << ", " << truncate;
            }
        }
    }
}

// The rule of docs/kv-cache.md, for a sequence without cuts.
TEST(Visibility, FollowsPositionAlone) {
    for (const Types& types : kTypes) {
        for (const test::Lengths& lengths : test::kAllLengths) {
            const Shape shape{.type_k = types.k, .type_v = types.v, .lengths = lengths, .n_seq = 1};
            kv::Cache cache(shape.config());
            const Tokens tokens(shape, kTokens, 9);
            int at = 0;
            for (const int n : random_cut(kTokens, 5)) {
                const Segment segment{0, 0, n};
                test::stage_call(cache, {&segment, 1}, tokens, at, at + n);
                for (const Side side : {Side::keys, Side::values}) {
                    const kv::SideView view = cache.view(side, segment, 0, 0);
                    const lk_cache_type type = side == Side::keys ? types.k : types.v;
                    for (int i = 0; i < n; ++i) {
                        const int p = at + i;
                        const int g = lengths.group;
                        const int r = kv::make_residual(shape.config().params, type);
                        const int paged = !kv::is_kivi(type)     ? std::max(0, p + 1 - r)
                                          : p < lengths.residual ? 0
                                                                 : g * ((p - lengths.residual) / g);
                        ASSERT_EQ(view.paged_for(i), paged) << shape.text() << ", position " << p;
                        ASSERT_EQ(view.sinks_for(paged), kv::is_kivi(type) ? std::min(paged, 4) : 0);
                    }
                }
                test::append(cache, 0, tokens, at, at + n);
                at += n;
            }
        }
    }
}

// The paper's prefill attends to the exact rows of its call.
TEST(Visibility, OfThePaperIsItsCall) {
    const Shape shape{.type_k = LK_CACHE_KIVI2_PAPER, .type_v = LK_CACHE_KIVI2_PAPER, .n_seq = 1};
    kv::Cache cache(shape.config());
    const Tokens tokens(shape, 700, 9);
    test::append(cache, 0, tokens, 0, 300);
    const Segment segment{0, 0, 400};
    test::stage_call(cache, {&segment, 1}, tokens, 300, 700);
    for (const int row : {0, 200, 399}) {
        EXPECT_EQ(cache.view(Side::keys, segment, 0, 0).paged_for(row), 256);
        EXPECT_EQ(cache.view(Side::values, segment, 0, 0).paged_for(row), 300 - 128);
    }
}

// ---- kernels

TEST(KernelInvariance, RowsAndTokensOfACallDoNotMatter) {
    constexpr int kRows = 7;
    constexpr int kKeys = 23;
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (const int d : {64, 80, 128}) {
        std::vector<half_t> rows(kKeys * d);
        std::generate(rows.begin(), rows.end(), [&] { return float_to_half(normal(random)); });
        std::vector<float> q(kRows * d);
        std::vector<float> p(kRows * kKeys);
        for (std::vector<float>* x : {&q, &p}) {
            std::generate(x->begin(), x->end(), [&] { return normal(random); });
        }
        for (const Kernels* kernels : test::kernel_tables()) {
            std::vector<float> scores(kRows * kKeys);
            std::vector<float> sums(kRows * d);
            kernels->score_exact(rows.data(), kKeys, d, q.data(), kRows, scores.data(), kKeys);
            kernels->accumulate_exact(rows.data(), kKeys, d, p.data(), kKeys, kRows, sums.data());
            for (const int step : {1, 3, 4, 5, 16}) {
                for (int r = 0; r < kRows; ++r) {
                    std::vector<float> sum(d);
                    for (int t = 0; t < kKeys; t += step) {
                        const int n = std::min(step, kKeys - t);
                        std::vector<float> score(n);
                        kernels->score_exact(rows.data() + t * d, n, d, q.data() + r * d, 1, score.data(), n);
                        EXPECT_TRUE(std::equal(score.begin(), score.end(), scores.begin() + r * kKeys + t))
                            << kernels->name << ", D " << d << ", " << step << " tokens at " << t;
                        kernels->accumulate_exact(rows.data() + t * d, n, d, p.data() + r * kKeys + t, n, 1,
                                                  sum.data());
                    }
                    EXPECT_TRUE(std::equal(sum.begin(), sum.end(), sums.begin() + r * d)) << kernels->name;
                }
            }
        }
    }
}

}  // namespace
}  // namespace lk
