// Batch-invariant contexts on the GPU: logits have the same bits however a text is divided into calls, and whatever
// else is in the batch. Without a GPU the tests are skipped.
#include "support/cuda_helpers.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

struct InvariantCache {
    lk_cache_type type;
    lk_row_type rows = LK_ROWS_OWN;
};

constexpr InvariantCache kCaches[] = {{LK_CACHE_F16},
                                      {LK_CACHE_Q8_0},
                                      {LK_CACHE_Q4_0},
                                      {LK_CACHE_KIVI4},
                                      {LK_CACHE_KIVI4, LK_ROWS_F16},
                                      {LK_CACHE_KIVI2},
                                      {LK_CACHE_KIVI2, LK_ROWS_F16},
                                      {LK_CACHE_KIVI3},
                                      {LK_CACHE_KIVI3, LK_ROWS_F16}};

lk_context_params invariant_params(const InvariantCache& cache) {
    lk_context_params params = test::small_params(cache.type);
    const int32_t residual = kv::is_kivi(cache.type) ? 50 : 0;
    params.cache = {cache.type, cache.type, 0, residual, -1, 0, cache.rows, 0, 0};
    params.batch_invariant = 1;
    return params;
}

class CudaInvariant : public testing::Test {
protected:
    void SetUp() override { LK_NEED_GPU(); }

    // The demo model, as it is or with F16 weights, on the GPU.
    static lk_model* model(bool halves) {
        static const test::TemporaryFolder folder;
        const auto load = [](const std::string& path) {
            lk_model_params params;
            lk_model_params_default(&params);
            params.n_gpu_layers = -1;
            lk_model* out = nullptr;
            EXPECT_EQ(lk_model_load(path.c_str(), &params, &out), LK_OK) << lk_last_error();
            return out;
        };
        static lk_model* const own = load(test::demo_model_path());
        static lk_model* const in_halves = [&] {
            const std::string path = folder.file("invariant-f16.gguf");
            lk_quantize_params params;
            lk_quantize_params_default(&params);
            params.type = "F16";
            EXPECT_EQ(lk_quantize(test::demo_model_path(), path.c_str(), &params, nullptr), LK_OK) << lk_last_error();
            return load(path);
        }();
        return halves ? in_halves : own;
    }

    // Logits of every token of a text that sequence 0 reads in calls of `size` tokens. Every call also brings `others`
    // tokens of sequence 1, before those of sequence 0.
    static std::vector<test::Logits> read(lk_model* model, const lk_context_params& params,
                                          const std::vector<int32_t>& text, size_t size, size_t others = 0) {
        test::TestContext context(params, model);
        std::vector<test::Logits> logits;
        for (size_t at = 0; at < text.size(); at += size) {
            const size_t n = std::min(size, text.size() - at);
            std::vector<int32_t> tokens(others, text[at]);
            std::vector<int32_t> seqs(others, 1);
            std::vector<uint8_t> outputs(others, 0);
            tokens.insert(tokens.end(), text.begin() + at, text.begin() + at + n);
            seqs.insert(seqs.end(), n, 0);
            outputs.insert(outputs.end(), n, 1);
            const lk_batch batch{tokens.data(), nullptr,        seqs.data(),
                                 nullptr,       outputs.data(), static_cast<uint32_t>(tokens.size())};
            EXPECT_EQ(lk_decode(context.get(), &batch), LK_OK) << lk_last_error();
            for (size_t i = 0; i < n; ++i) {
                logits.push_back(context.logits(static_cast<uint32_t>(others + i)));
            }
        }
        return logits;
    }

    static void expect_equal(const std::vector<test::Logits>& actual, const std::vector<test::Logits>& expected) {
        ASSERT_EQ(actual.size(), expected.size());
        const auto first = std::mismatch(actual.begin(), actual.end(), expected.begin()).first;
        const size_t token = first - actual.begin();
        EXPECT_EQ(token, expected.size())
            << "first differs by " << test::distance(actual[token], expected[token]) << " of the spread";
    }
};

TEST_F(CudaInvariant, CutsOfATextChangeNothing) {
    const std::vector<int32_t> text = test::text_tokens(420);
    for (const bool halves : {true, false}) {
        for (const InvariantCache& cache : kCaches) {
            const lk_context_params params = invariant_params(cache);
            const std::vector<test::Logits> single = read(model(halves), params, text, 1);
            for (const size_t size : {size_t{3}, size_t{7}, size_t{32}, size_t{128}, text.size()}) {
                SCOPED_TRACE(format("%s, rows %d, %s, calls of %zu", lk_cache_type_name(cache.type), cache.rows,
                                    halves ? "F16" : "Q4_K_M", size));
                expect_equal(read(model(halves), params, text, size), single);
            }
        }
    }
}

TEST_F(CudaInvariant, OtherSequencesChangeNothing) {
    const std::vector<int32_t> text = test::text_tokens(200);
    for (const bool halves : {true, false}) {
        for (const InvariantCache& cache : kCaches) {
            lk_context_params params = invariant_params(cache);
            const std::vector<test::Logits> alone = read(model(halves), params, text, 5);
            params.n_ubatch = 40;  // passes cut the calls
            for (const auto& [size, others] : {std::pair<size_t, size_t>{1, 1}, {1, 3}, {50, 60}, {200, 10}}) {
                SCOPED_TRACE(format("%s, rows %d, %s, calls of %zu beside %zu", lk_cache_type_name(cache.type),
                                    cache.rows, halves ? "F16" : "Q4_K_M", size, others));
                expect_equal(read(model(halves), params, text, size, others), alone);
            }
        }
    }
}

// The arithmetic is that of the default within rounding.
TEST_F(CudaInvariant, LogitsEqualTheDefaults) {
    const std::vector<int32_t> text = test::text_tokens(200);
    for (const bool halves : {true, false}) {
        lk_context_params params = invariant_params({LK_CACHE_F16});
        const std::vector<test::Logits> invariant = read(model(halves), params, text, 64);
        params.batch_invariant = 0;
        const std::vector<test::Logits> plain = read(model(halves), params, text, 64);
        double worst = 0;
        for (size_t t = 0; t < text.size(); ++t) {
            worst = test::worse(worst, test::distance(invariant[t], plain[t]));
        }
        std::printf("batch-invariant, %s: differs from the default by %.2g of the spread\n", halves ? "F16" : "Q4_K_M",
                    worst);
        EXPECT_LT(worst, 0.02);
    }
}

// A fork, a rewind within the undo window, and a state saved and loaded continue with the same bits.
TEST_F(CudaInvariant, GoingBackAndStatesChangeNothing) {
    const std::vector<int32_t> text = test::text_tokens(260);
    for (const InvariantCache& cache : kCaches) {
        SCOPED_TRACE(format("%s, rows %d", lk_cache_type_name(cache.type), cache.rows));
        const lk_context_params params = invariant_params(cache);
        const std::vector<test::Logits> expected = read(model(true), params, text, 1);
        test::TestContext context(params, model(true));
        context.run({text.begin(), text.begin() + 200});
        ASSERT_EQ(lk_seq_copy(context.get(), 0, 1), LK_OK) << lk_last_error();
        context.run(test::text_tokens(9), 1);
        ASSERT_EQ(lk_seq_truncate(context.get(), 1, 195), LK_OK) << lk_last_error();
        EXPECT_EQ(context.run({text.begin() + 195, text.end()}, 1), expected.back()) << "fork, rewound";
        uint64_t size = 0;
        ASSERT_EQ(lk_seq_state_size(context.get(), 0, &size), LK_OK) << lk_last_error();
        std::vector<uint8_t> state(size);
        ASSERT_EQ(lk_seq_state_get(context.get(), 0, state.data(), size), LK_OK) << lk_last_error();
        test::TestContext other(params, model(true));
        ASSERT_EQ(lk_seq_state_set(other.get(), 0, state.data(), size), LK_OK) << lk_last_error();
        EXPECT_EQ(other.run({text.begin() + 200, text.end()}), expected.back()) << "state";
    }
}

// Attention alone, for the shapes that the demo model does not have: one query head per KV head, heads of 128, large
// groups. Row by row, in one pass, and beside a longer sequence.
class CudaInvariantAttention : public Cuda {
protected:
    void SetUp() override {
        Cuda::SetUp();
        if (device_ != nullptr) {
            std::swap(backend_, invariant_backend_);
        }
    }

    // Outputs of rows [begin, end) of sequence 0, one pass each of up to `size` rows.
    std::vector<float> read(const Shape& shape, int n_head, const Tokens& tokens, const std::vector<float>& q,
                            int begin, int end, int window, int size, int n_others) {
        kv::Cache cache(shape.config(), device_->memory());
        append(cache, 1, tokens, 0, n_others);
        const size_t width = static_cast<size_t>(n_head) * shape.head_size;
        std::vector<float> out;
        for (int t = 0; t < end;) {
            const kv::Sequence& sequence = cache.sequence(0);
            const int until_flush = std::min(sequence.k.rows_to_first_flush(), sequence.v.rows_to_first_flush());
            const int n = std::min({t < begin ? begin - t : size, end - t, until_flush});
            if (t < begin) {
                append(cache, 0, tokens, t, t + n);
                t += n;
                continue;
            }
            // The other sequence, whose outputs are not compared, brings its next token.
            const std::vector<Segment> segments = {{0, 0, n}, {1, n, 1}};
            cache.reserve(segments);
            Tokens rows = tokens;
            for (auto* side : {&rows.k, &rows.v}) {
                std::vector<float>& all = side->front();
                const auto row = [&](int i) { return all.begin() + static_cast<ptrdiff_t>(i) * tokens.width; };
                std::vector<float> both(row(t), row(t + n));
                both.insert(both.end(), row(0), row(1));
                all = both;
            }
            const Buffer<float> k = upload(rows.k[0]);
            const Buffer<float> v = upload(rows.v[0]);
            pass_ = backend_->begin(cache, segments, nullptr);
            backend_->stage({.cache = &cache,
                             .layer = 0,
                             .n = n + 1,
                             .k = const_cast<float*>(k.data()),
                             .v = v.data(),
                             .pass = pass_.get()});
            backend_->stage_pages(*pass_, cache.layers());
            std::vector<float> own_q(q.begin() + t * width, q.begin() + (t + n) * width);
            own_q.insert(own_q.end(), q.begin(), q.begin() + width);
            const std::vector<float> part = attend(cache, segments, own_q, n_head, window);
            out.insert(out.end(), part.begin(), part.begin() + n * width);
            backend_->commit(*pass_);
            backend_->finish();
            t += n;
        }
        return out;
    }
};

// Beside a sequence of 10 or 1,500 tokens: rows before the first page, whose sinks the pass itself makes; rows with few
// pages; rows that cross the length from which a sequence is read in several launches; and a ring of an odd number of
// rows, which are at any multiple of four bytes.
TEST_F(CudaInvariantAttention, DoesNotDependOnTheBatch) {
    struct Rows {
        int begin;
        int end;
        int window;
        int residual;
    };
    constexpr Rows kRows[] = {
        {0, 40, 0, 50}, {150, 330, 0, 50}, {250, 300, 90, 50}, {600, 640, 0, 50}, {150, 190, 0, 33}};
    for (const InvariantCache& cache : kCaches) {
        for (const auto& [head_size, n_head] : {std::pair{64, 1}, {128, 1}, {128, 4}, {64, 9}}) {
            for (const auto& [begin, end, window, residual] : kRows) {
                const Shape shape{.type_k = cache.type,
                                  .type_v = cache.type,
                                  .lengths = {64, residual},
                                  .head_size = head_size,
                                  .n_ubatch = 2048,
                                  .residual_type = cache.rows};
                SCOPED_TRACE(format("%s, rows %d, residual %d, %d heads of %d, tokens %d to %d, window %d",
                                    lk_cache_type_name(cache.type), cache.rows, residual, n_head, head_size, begin, end,
                                    window));
                const Tokens tokens(shape, 1600, 11, 1);
                const std::vector<float> q = queries(end, n_head, head_size);
                const std::vector<float> single = read(shape, n_head, tokens, q, begin, end, window, 1, 10);
                for (const auto& [size, n_others] : {std::pair{3, 10}, {180, 10}, {1, 1500}, {64, 1500}}) {
                    EXPECT_EQ(read(shape, n_head, tokens, q, begin, end, window, size, n_others), single)
                        << "passes of " << size << " beside " << n_others;
                }
            }
        }
    }
}

// Caches that only the prompt kernels read are refused with what to change.
TEST_F(CudaInvariant, OtherCachesAreRefused) {
    const auto expect_refused = [](const lk_cache_params& cache, const std::vector<std::string>& parts) {
        lk_context_params params = test::small_params();
        params.cache = cache;
        params.batch_invariant = 1;
        lk_context* context = nullptr;
        test::expect_failure(lk_context_create(model(true), &params, &context), LK_UNSUPPORTED, parts);
        EXPECT_EQ(context, nullptr);
    };
    expect_refused({LK_CACHE_KIVI4, LK_CACHE_Q8_0, 0, 64, -1, 0, LK_ROWS_OWN, 0, 0},
                   {"batch_invariant", "kivi4", "q8_0", "CPU"});
    expect_refused({LK_CACHE_KIVI2, LK_CACHE_KIVI2, 16, 64, -1, 0, LK_ROWS_OWN, 0, 0}, {"batch_invariant", "group 16"});
}

}  // namespace
}  // namespace lk
