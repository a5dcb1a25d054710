// Plans of batch-invariant passes, with host memory in place of device memory: every row is described as in
// token-by-token decoding.
#include "backend/cuda/plan/row_plan.h"

#include <algorithm>
#include <climits>
#include <cstring>

#include "backend/cuda/plan/exact_rows.h"
#include "backend/invariant_splits.h"
#include "support/kv_helpers.h"
#include "support/plugin_helpers.h"

namespace lk::cuda {
namespace {

using kv::Segment;
using kv::Side;
using test::Shape;
using test::Tokens;

constexpr int kHeadSize = 64;

// What the kernels read of one side of a row.
struct SideReads {
    std::vector<std::array<int, 4>> runs;    // start, count, first, frame
    std::vector<uint8_t> codes;              // of the pages that the runs fill
    std::vector<std::vector<uint8_t>> rows;  // exact rows from the first token that no run holds
    std::vector<bool> in_blocks;             // their form

    bool operator==(const SideReads&) const = default;
};

// How `whole` divides a row's exact tokens, and what reads the row with one query head per KV head.
struct RowWork {
    std::array<int, 4> exact_rows;  // sinks, first and last row in blocks, halves
    AttentionKernel rest;           // reads the exact tokens
    bool in_one_launch;             // and all others

    bool operator==(const RowWork&) const = default;
};

struct RowReads {
    SideReads k;
    SideReads v;
    int length;
    int page_runs;
    int page_tokens;
    bool exact;
    RowWork work;

    bool operator==(const RowReads&) const = default;
};

// As exact_row of the kernels, for head 0.
SideReads reads_of(const SideWork& w, const kv::SideSpec& spec, int position) {
    SideReads reads;
    int paged = 0;
    for (int r = 0; r < w.n_runs; ++r) {
        const cuda::Run& run = w.runs[r];
        EXPECT_EQ(run.start, paged);
        paged += run.count;
        if (!spec.format.quantized()) {
            continue;  // its rows are compared below
        }
        reads.runs.push_back({run.start, run.count, run.first, run.frame});
        if (run.count == kv::kPageTokens) {
            reads.codes.insert(reads.codes.end(), run.block, run.block + spec.format.page_bytes);
        }
    }
    EXPECT_EQ(paged, w.n_paged);
    const size_t half_bytes = spec.format.head_size * sizeof(half_t);
    for (int token = spec.format.quantized() ? paged : 0; token <= position; ++token) {
        const int i = token - w.n_paged;
        const uint8_t* from = nullptr;
        bool blocks = false;
        if (token < w.n_sinks) {
            from = reinterpret_cast<const uint8_t*>(w.sinks) + token * half_bytes;
        } else if (token < w.n_paged) {
            const auto* run =
                std::find_if(w.runs, w.runs + w.n_runs, [&](const cuda::Run& r) { return token < r.start + r.count; });
            from = run->block + (run->first + token - run->start) * half_bytes;
        } else if (i < w.n_ring) {
            const int at = (w.ring_start + i) % spec.ring_rows();
            blocks = w.ring_blocks != nullptr;
            from = blocks ? w.ring_blocks + at * spec.ring_row_bytes()
                          : reinterpret_cast<const uint8_t*>(w.ring) + at * half_bytes;
        } else {
            const int staged = i - w.n_ring;
            blocks = staged < w.staged.n_blocks && token >= spec.sinks;
            from = blocks ? w.staged.blocks + staged * spec.ring_row_bytes()
                          : reinterpret_cast<const uint8_t*>(w.staged.rows) + staged * half_bytes;
        }
        reads.rows.emplace_back(from, from + (blocks ? spec.ring_row_bytes() : half_bytes));
        reads.in_blocks.push_back(blocks);
    }
    return reads;
}

// The kernels of an attention request; those of `whole` have no pages.
AttentionChoice kernels_of(const AttentionRequest& request) {
    return plan_attention(request, [](const AttentionVariant&) { return 500; }).choice;
}

// `whole` reads every exact token that a row sees once: in blocks those whose rows are in blocks.
RowWork work_of(const SegmentWork& w, const kv::SideSpec& spec, const SideReads& reads,
                const AttentionChoice& kernels) {
    const bool in_blocks = spec.format.recipe.ring == kv::RowType::q8_0;
    const auto divide = [&](int window) { return ExactRows(w, side_shape(spec, 1024), window, in_blocks); };
    for (const int window : {0, 100}) {
        const ExactRows rows = divide(window);
        std::vector<int> times(w.length + 1);
        for (int i = 0; i < rows.n_halves; ++i) {
            ++times[rows.half_token(i)];
        }
        for (int token = rows.ring_first; token < rows.ring_end; ++token) {
            ++times[token];
        }
        const int first = w.length + 1 - static_cast<int>(reads.rows.size());  // of `reads`
        for (int token = window > 0 ? std::max(0, w.length + 1 - window) : 0; token <= w.length; ++token) {
            EXPECT_EQ(times[token], token < rows.n_sinks || token >= w.page_tokens ? 1 : 0) << "token " << token;
            const bool blocks = token >= rows.ring_first && token < rows.ring_end;
            EXPECT_EQ(blocks, token >= first && reads.in_blocks[token - first]) << "token " << token;
        }
        if (in_blocks) {
            EXPECT_EQ(rows.ring_end - rows.staged, w.k.staged.n_blocks);
        }
    }
    const ExactRows rows = divide(0);
    return {{rows.n_sinks, rows.ring_first, rows.ring_end, rows.n_halves},
            kernels.rest.kernel,
            kernels.rest.type != LK_CACHE_F16};
}

// The rows of a pass by their position in it.
std::vector<RowReads> reads_of_pass(kv::Cache& cache, const Segment& segment) {
    const test::PluginPassView pass(cache, {&segment, 1});
    const PassPlan plan = plan_rows(pass.cache, pass.segments());
    std::vector<uint64_t> image(plan.bytes() / 8);
    auto* const bytes = reinterpret_cast<uint8_t*>(image.data());
    write_rows(plan, pass.cache, pass.segments(), bytes, bytes);
    const auto* next = reinterpret_cast<const SegmentWork*>(bytes);
    std::vector<RowReads> rows(segment.n_rows);
    size_t n = 0;
    for (const AttentionRequest& request : attention_requests(pass.cache, plan, cache.config().n_head_kv, true)) {
        EXPECT_EQ(request.max_rows, 1);
        const AttentionChoice kernels = kernels_of(request);
        for (int i = 0; i < request.n_segments; ++i, ++n) {
            const SegmentWork& w = *next++;
            EXPECT_EQ(w.n_rows, 1);
            EXPECT_LE(w.length + 1 - w.page_tokens, request.max_tokens);
            EXPECT_LE(w.page_runs, request.max_page_runs);
            RowReads& row = rows[w.row - segment.row];
            row = {reads_of(w.k, cache.spec(Side::keys), w.length),
                   reads_of(w.v, cache.spec(Side::values), w.length),
                   w.length,
                   w.page_runs,
                   w.page_tokens,
                   request.exact,
                   {}};
            row.work = work_of(w, cache.spec(Side::keys), row.k, kernels);
        }
    }
    EXPECT_EQ(n, static_cast<size_t>(segment.n_rows));
    return rows;
}

int first_flush(const kv::Cache& cache, int seq) {
    const kv::Sequence& s = cache.sequence(seq);
    return std::min(s.k.rows_to_first_flush(), s.v.rows_to_first_flush());
}

// Types that the decoding kernels read.
constexpr lk_cache_type kDecodedTypes[] = {LK_CACHE_F16,   LK_CACHE_Q8_0,        LK_CACHE_Q4_0,        LK_CACHE_KIVI4,
                                           LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER, LK_CACHE_KIVI3};

TEST(RowPlan, RowsReadWhatDecodingReads) {
    constexpr int kTokens = 640;  // of which up to 526 are in five pages
    for (const lk_cache_type type : kDecodedTypes) {
        if (type == LK_CACHE_KIVI2_PAPER || type == LK_CACHE_KIVI4_PAPER) {
            continue;  // their prefill attends to the exact rows of its call
        }
        const Shape shape{.type_k = type, .type_v = type, .lengths = {64, 50}, .head_size = kHeadSize};
        const Tokens tokens(shape, kTokens, 3);
        kv::Cache single(shape.config());
        std::vector<RowReads> expected;
        for (int t = 0; t < kTokens; ++t) {
            const Segment one{0, 0, 1};
            test::stage_call(single, {&one, 1}, tokens, t, t + 1);
            expected.push_back(reads_of_pass(single, one)[0]);
            test::append(single, 0, tokens, t, t + 1);
        }
        for (const int size : {3, 40, 131, kTokens}) {
            kv::Cache cache(shape.config());
            int n_passes = 0;
            for (int t = 0; t < kTokens;) {
                const int n = std::min({size, kTokens - t, first_flush(cache, 0)});
                const Segment segment{0, 0, n};
                test::stage_call(cache, {&segment, 1}, tokens, t, t + n);
                const std::vector<RowReads> actual = reads_of_pass(cache, segment);
                for (int i = 0; i < n; ++i) {
                    ASSERT_TRUE(actual[i] == expected[t + i])
                        << lk_cache_type_name(type) << ", calls of " << size << ", token " << t + i;
                }
                test::append(cache, 0, tokens, t, t + n);
                t += n;
                ++n_passes;
            }
            EXPECT_LE(n_passes, (kTokens + size - 1) / size + 1) << "only the first flush ends a pass";
        }
        EXPECT_TRUE(expected.back().exact);
        if (!kv::is_kivi(type)) {
            continue;
        }
        const auto first_long = std::find_if(expected.begin(), expected.end(),
                                             [](const RowReads& r) { return r.page_runs > kAttentionWarps; });
        EXPECT_NE(first_long, expected.end());
        for (auto row = expected.begin(); row != expected.end(); ++row) {
            EXPECT_EQ(row->work.rest, AttentionKernel::whole);
            EXPECT_EQ(row->work.in_one_launch, row < first_long) << "token " << row->length;
        }
    }
}

// Passes end before the first row that reads tables or sinks which the pass would make.
TEST(RowPlan, TheFirstFlushIsKnown) {
    const auto rows = [](lk_cache_type type, int length) {
        const Shape shape{.type_k = type, .type_v = type, .lengths = {32, 64}};
        kv::Cache cache(shape.config());
        const Tokens tokens(shape, length + 1, 1);
        if (length > 0) {
            test::append(cache, 0, tokens, 0, length);
        }
        return first_flush(cache, 0);
    };
    EXPECT_EQ(rows(LK_CACHE_KIVI2, 0), 96);
    EXPECT_EQ(rows(LK_CACHE_KIVI2, 95), 1);
    EXPECT_EQ(rows(LK_CACHE_KIVI2, 96), INT_MAX);
    EXPECT_EQ(rows(LK_CACHE_F16, 0), INT_MAX);
    EXPECT_EQ(rows(LK_CACHE_Q8_0, 0), INT_MAX);
    EXPECT_EQ(rows(LK_CACHE_KIVI2_PAPER, 0), INT_MAX) << "no query reads pages of its own call";
}

TEST(RowPlan, SplitsDoNotDependOnTheBatch) {
    AttentionRequest r{};
    r.k = kv::make_page_format(LK_CACHE_KIVI2, Side::keys, 128, 32);
    r.v = kv::make_page_format(LK_CACHE_KIVI2, Side::values, 128, 32);
    r.max_rows = 1;
    r.exact = true;
    r.invariant = true;
    for (const int group : {1, 4, 8, 71}) {
        r.n_head_kv = 2;
        r.n_head = 2 * group;
        r.max_tokens = 90;
        r.max_page_runs = 9;
        const AttentionChoice choice = select_attention(r);
        EXPECT_EQ(choice.rest.kernel, group == 1 ? AttentionKernel::whole : AttentionKernel::ring_group);
        for (const int n_segments : {1, 64, 1000}) {
            r.n_segments = n_segments;
            const AttentionSplits splits = split_attention(r, choice, 500, 500);
            EXPECT_EQ(splits.rest, 1);
            EXPECT_EQ(splits.pages, 3) << "of four pages";
        }
    }
}

// The splits cover the steps in order, whatever their number.
TEST(RowPlan, SplitsCoverTheSteps) {
    for (const int n : {1, 4, 5, 128, 129, 160, 161, 4096}) {
        const int count = InvariantSplits::count(n);
        EXPECT_LT(InvariantSplits::begin(count - 1), n);
        EXPECT_GE(InvariantSplits::begin(count), n);
    }
    EXPECT_EQ(InvariantSplits::begin(0), 0);
    EXPECT_EQ(InvariantSplits::begin(33) - InvariantSplits::begin(32), 32);
    EXPECT_EQ(InvariantSplits::count(4096), 32 + (4096 - 128) / 32);
}

TEST(RowPlan, CachesWithoutDecodingKernelsAreRefused) {
    const auto check = [](Shape shape) {
        kv::Cache cache(shape.config());
        check_invariant(test::PluginPassView(cache, {}).cache);
    };
    for (const lk_cache_type type : kDecodedTypes) {
        for (const int head_size : {64, 128}) {
            check({.type_k = type, .type_v = type, .head_size = head_size});
        }
    }
    test::expect_error(LK_UNSUPPORTED, {"batch_invariant", "heads of 64 or 128", "96", "CPU"},
                       [&] { check({.head_size = 96}); });
    test::expect_error(LK_UNSUPPORTED, {"batch_invariant", "kivi4", "q8_0", "for both"},
                       [&] { check({.type_k = LK_CACHE_KIVI4, .type_v = LK_CACHE_Q8_0}); });
    test::expect_error(LK_UNSUPPORTED, {"batch_invariant", "n_ubatch", "65535"},
                       [&] { check({.n_ctx = 1 << 16, .n_ubatch = 1 << 16}); });
    test::expect_error(LK_UNSUPPORTED, {"batch_invariant", "group 16"}, [&] { check({.lengths = {16, 32}}); });
    for (const lk_cache_type type : test::kAllTypes) {
        if (std::find(std::begin(kDecodedTypes), std::end(kDecodedTypes), type) == std::end(kDecodedTypes)) {
            test::expect_error(LK_UNSUPPORTED, {"batch_invariant", lk_cache_type_name(type)},
                               [&] { check({.type_k = type, .type_v = type}); });
        }
    }
    test::expect_error(LK_UNSUPPORTED, {"batch_invariant", "q8_0", "residual"},
                       [&] { check({.type_k = LK_CACHE_Q8_0, .type_v = LK_CACHE_Q8_0, .windows = true}); });
}

}  // namespace
}  // namespace lk::cuda
